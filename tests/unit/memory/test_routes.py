"""THREADLINE_MEMORY_ROUTES: what it says, and that every mistake in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from threadline.errors import ConfigurationError
from threadline_worker.memory import threadline_backend
from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import parse_routes, routes_from_env
from threadline_worker.settings import WorkerSettings


def test_the_default_is_the_users_memories() -> None:
    (route,) = routes_from_env({})
    assert (route.path, route.kind, route.writable) == ("/memories/", "user", True)


def test_all_kinds(tmp_path: Path) -> None:
    user, shared, disk = parse_routes(f"/memories/=user:rw, /a/b/=shared:r,/project/=disk:{tmp_path}:rw")
    names = UserNames()
    assert user.namespace(names, "u") == ("memories", names.name("u"))
    assert shared.namespace(names, None) == ("a:b", "shared") == shared.namespace(names, "u")
    assert (disk.root, disk.writable, shared.writable) == (tmp_path, True, False)
    for route, who in ((user, None), (disk, "u")):
        with pytest.raises(ValueError, match="no place"):
            route.namespace(names, who)


@pytest.mark.parametrize(
    "text",
    [
        "/memories/",
        "/memories/=user",
        "/memories/=user:x",
        "/memories/=user:/srv:rw",
        "/memories/=disk:rw",
        "/memories/=disk:relative:rw",
        "/memories=user:rw",
        "memories/=user:rw",
        "/=user:rw",
        "/../=user:rw",
        "/a/../b/=user:rw",
        "/mem\u00f6ries/=user:rw",
        "/large_tool_results/=user:rw",
        "/langgraph/=shared:rw",
        "/a/=user:rw,/a/=shared:r",
        "/a/=user:rw,/a/b/=shared:r",
    ],
)
def test_mistakes_are_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="THREADLINE_MEMORY_ROUTES"):
        parse_routes(text)


def test_where_agents_run_the_folder_exists_and_elsewhere_it_need_not() -> None:
    text = "/project/=disk:/no/such/folder:r"
    assert len(parse_routes(text)) == 1  # `threadline migrate` runs on any machine
    servers = {"REDIS_URL": "redis://h", "DATABASE_URL": "postgresql://h/d"}
    with pytest.raises(ConfigurationError, match="/no/such/folder"):
        WorkerSettings.from_env({**servers, "THREADLINE_MEMORY_ROUTES": text})
    with pytest.raises(ConfigurationError, match="/no/such/folder"):
        threadline_backend(text)
