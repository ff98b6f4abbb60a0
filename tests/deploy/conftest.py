"""Both servers as deploy/ sets them up, once for each module that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.estate import Estate, estate_on
from support.servers import ServerUrls


@pytest.fixture(scope="module")
def estate(servers: ServerUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with estate_on(servers, tmp_path_factory.mktemp("estate")) as made:
        yield made
