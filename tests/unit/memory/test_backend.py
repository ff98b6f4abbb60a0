"""The files of a deep agent, inside a run as the worker makes it but without servers."""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.memory import threadline_backend, user_namespace
from threadline_worker.memory.text import MAX_FILE_BYTES


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "secret.md").write_text("secret")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "readme.md").write_text("the project")
    (folder / "out.md").symlink_to(tmp_path / "secret.md")
    (folder / "up").symlink_to(tmp_path)
    return folder


def env_of(project: Path, **more: str) -> dict[str, str]:
    routes = (
        f"/memories/=user:rw,/knowledge/=shared:r,/team/=shared:rw,/project/=disk:{project}:r,/work/=disk:{project}:rw"
    )
    return {"THREADLINE_MEMORY_ROUTES": routes, **more}


class WithFiles(MessagesState):
    files: Annotated[dict[str, Any], operator.or_]


async def within(
    store: InMemoryStore, act: Callable[[], Any], user: str | None = "u", context: Any = None, asked: Any = None
) -> Any:
    """What `act` gives inside a run of the user."""
    found: list[Any] = []

    async def node(_state: Any) -> dict[str, Any]:
        made = act()
        found.append(await made if hasattr(made, "__await__") else made)
        return {}

    graph = StateGraph(WithFiles, context_schema=asked)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    configurable = {} if user is None else {"user_id": user}
    await graph.compile(store=store).ainvoke(
        {"messages": [], "files": {}}, {"configurable": configurable}, context=context
    )
    return found[0]


async def test_each_user_has_a_folder_of_their_own_and_all_share_the_shared(project: Path) -> None:
    store, backend = InMemoryStore(), threadline_backend(env=env_of(project))
    for user in ("ann@example.org", "bob"):
        await within(store, lambda user=user: backend.awrite("/memories/name.md", user), user)
    await within(store, lambda: backend.awrite("/team/plan.md", "plan"), "bob")
    for user in ("ann@example.org", "bob"):
        read = await within(store, lambda: backend.aread("/memories/name.md"), user)
        assert read.file_data["content"] == user
        assert store.get(user_namespace("memories", user_id=user), "/name.md") is not None
        listed = await within(store, lambda: backend.als("/memories/"), user)
        assert [entry["path"] for entry in listed.entries] == ["/memories/name.md"]
        found = await within(store, lambda: backend.agrep("example.org"), user)
        assert len(found.matches) == (user == "ann@example.org")
        assert (await within(store, lambda: backend.aread("/team/plan.md"), user)).file_data["content"] == "plan"


async def test_read_only_routes_answer_that_they_are(project: Path) -> None:
    store, backend = InMemoryStore(), threadline_backend(env=env_of(project))
    store.put(("knowledge", "shared"), "/a.md", {"content": "known", "encoding": "utf-8"})
    before = sorted(path.name for path in project.iterdir())
    for route, name in (("/knowledge", "a.md"), ("/project", "readme.md")):
        assert (await within(store, lambda r=route, n=name: backend.aread(f"{r}/{n}"))).error is None
        for act in (
            lambda r=route: backend.awrite(f"{r}/new.md", "x"),
            lambda r=route, n=name: backend.aedit(f"{r}/{n}", "known", "x"),
            lambda r=route, n=name: backend.adelete(f"{r}/{n}"),
            lambda r=route: backend.write(f"{r}/new.md", "x"),
            lambda r=route, n=name: backend.delete(f"{r}/{n}"),
        ):
            assert "read-only" in (await within(store, act)).error
        (answer,) = await within(store, lambda r=route: backend.aupload_files([(f"{r}/new.md", b"x")]))
        assert answer.error == "permission_denied"
    assert sorted(path.name for path in project.iterdir()) == before
    assert len(store.search(("knowledge",))) == 1


@pytest.mark.parametrize("path", ["out.md", "up/secret.md", "../secret.md", "a\0b", "\ud800"])
async def test_disk_ends_at_its_folder_and_no_path_raises(
    project: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "deepagents.backends.filesystem")  # xdist cannot carry a surrogate in a report
    store, backend = InMemoryStore(), threadline_backend(env=env_of(project))
    full = f"/work/{path}"
    assert (await within(store, lambda: backend.aread(full))).error
    assert (await within(store, lambda: backend.awrite(full, "x"))).error
    assert (await within(store, lambda: backend.aedit(full, "secret", "x"))).error
    assert (await within(store, lambda: backend.adelete(full))).error
    (answer,) = await within(store, lambda: backend.adownload_files([full]))
    assert answer.error
    for act in (lambda: backend.als(full), lambda: backend.aglob("*", full), lambda: backend.agrep("secret", full)):
        answered = await within(store, act)
        assert "secret" not in str(getattr(answered, "matches", None) or getattr(answered, "entries", None) or "")
    assert (project.parent / "secret.md").read_text() == "secret"
    assert not (project / "x").exists()


async def test_search_through_everything_stays_inside(project: Path) -> None:
    backend = threadline_backend(env=env_of(project))
    found = await within(InMemoryStore(), lambda: backend.agrep("secret", "/work/"))
    assert not found.matches
    listed = await within(InMemoryStore(), lambda: backend.aglob("**/*.md", "/work/"))
    assert [match["path"] for match in listed.matches] == ["/work/readme.md"]


@pytest.mark.parametrize(
    ("path", "text"),
    [("/a\0", "x"), ("/a", "x\0"), ("/" + "x" * 1100, "x"), ("/a", "\ud800"), ("/a", "x" * (MAX_FILE_BYTES + 1))],
)
async def test_what_postgres_cannot_hold_is_an_answer(project: Path, path: str, text: str) -> None:
    store, backend = InMemoryStore(), threadline_backend(env=env_of(project))
    await within(store, lambda: backend.awrite("/memories/a", "old"))
    assert (await within(store, lambda: backend.awrite(f"/memories{path}", text))).error
    assert (await within(store, lambda: backend.aedit(f"/memories{path}", "old", text))).error
    assert store.get(user_namespace("memories", user_id="u"), "/a").value["content"] == "old"


async def test_a_run_without_a_user_or_with_two_reads_nothing(project: Path) -> None:
    store, backend = InMemoryStore(), threadline_backend(env=env_of(project))
    for user, context in ((None, None), ("u", {"user_id": "v"}), ("", {"user_id": ""})):
        with pytest.raises(AgentConfigError, match="user"):
            await within(store, lambda: backend.aread("/memories/a"), user, context, asked=dict)
    await within(store, lambda: backend.awrite("/memories/a", "x"), None, {"user_id": "u"}, asked=dict)
    assert store.get(user_namespace("memories", user_id="u"), "/a") is not None
    # Shared and disk routes need none.
    assert (await within(store, lambda: backend.aread("/project/readme.md"), None)).error is None
    assert (await within(store, lambda: backend.als("/knowledge/"), None)).error is None


async def test_other_files_stay_in_the_threads_state(project: Path) -> None:
    backend = threadline_backend("/memories/=user:rw")
    assert type(backend.default).__name__ == "StateBackend"
    assert list(backend.routes) == ["/memories/"]


USERS = st.sampled_from(["a", "A", "a ", "а", "../b", "b", "a.b", "b/../a", "a%2e", "shared", ""]).filter(
    bool
) | st.text(min_size=1)
PATHS = st.lists(
    st.sampled_from(["..", ".", "memories", "b", "shared", "~", "%2e%2e", "．．", "／", "*", "\\", "a\0"]), max_size=4
).map("/".join)


@settings(max_examples=40, deadline=None)
@given(USERS, USERS, PATHS, st.sampled_from(["/memories/", "/memories/../memories/", "/", "/memories"]))
def test_no_path_or_user_id_reaches_what_is_anothers(user: str, other: str, path: str, folder: str) -> None:
    if user == other:
        return
    store, backend = InMemoryStore(), threadline_backend("/memories/=user:rw,/knowledge/=shared:r")

    async def everything() -> Any:
        full = f"{folder}{path}"
        return [
            await backend.awrite(full, "stolen"),
            await backend.aread(full),
            await backend.aedit(full, "c", "stolen"),
            await backend.als(full),
            await backend.agrep("canary", "/"),
            await backend.aglob("**", "/memories/"),
            await backend.adelete(full),
        ]

    async def run() -> Any:
        await within(store, lambda: backend.awrite("/memories/b", "canary"), other)
        answers = await within(store, everything, user)
        return answers, await within(store, lambda: backend.aread("/memories/b"), other)

    answers, kept = asyncio.run(run())
    assert "canary" not in str(answers)
    assert kept.file_data["content"] == "canary"
