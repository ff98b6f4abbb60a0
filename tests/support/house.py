"""One worker on a database of its own, for all tests of a module: each has threads and users of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from support.chaos_processes import package_roots
from support.ledger import cloned
from support.servers import ServerUrls
from support.workers import Workers

__all__ = ["house_on"]


@contextlib.contextmanager
def house_on(servers: ServerUrls, template: str, gates: Path, **env: str) -> Iterator[dict[str, str]]:
    """The worker's environment, and METRICS, where its figures are. `env` (THREADLINE_AGENTS at least) comes on top."""
    with cloned(servers, template) as url:
        whole = {
            "PATH": os.environ["PATH"],
            "REDIS_URL": f"{servers.redis_url.rsplit('/', 1)[0]}/0",
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parents[1])]),
            "THREADLINE_MODEL": "offline",
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
            "THREADLINE_HEARTBEAT_SECONDS": "0.2",
            "THREADLINE_LEASE_SECONDS": "5",
            "TEST_GATES": str(gates),
            **env,
        }
        with Workers(whole) as workers:
            yield {**whole, "METRICS": workers.start().metrics_url}
