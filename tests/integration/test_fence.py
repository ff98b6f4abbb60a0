"""F1, F4, R1: a run's saver writes for the job that the ledger gives it, and for nobody else."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base import id as checkpoint_clock
from langgraph.graph import END, START, StateGraph
from psycopg import AsyncCursor

from support.desk import Desk, desk_on
from support.gates import until
from support.graphs import Steps
from threadline.ledger.database import Database
from threadline_worker.checkpoints import CheckpointsAway, Fence, FencedSaver, LeaseLost, raise_checkpoint_clock


@pytest.fixture
async def desk(database_url):
    async with desk_on(database_url) as made:
        yield made


def config(thread_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


async def put(saver: FencedSaver, thread_id: str) -> None:
    await saver.aput(config(thread_id), empty_checkpoint(), {"source": "loop", "step": 1}, {})


async def put_blobs(saver: FencedSaver, thread_id: str) -> None:
    checkpoint = empty_checkpoint() | {"channel_values": {"a": [1]}, "channel_versions": {"a": "1"}}
    await saver.aput(config(thread_id), checkpoint, {"source": "loop", "step": 1}, {"a": "1"})


async def put_writes(saver: FencedSaver, thread_id: str) -> None:
    where = {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "c"}}
    await saver.aput_writes(where, [("a", 1)], "task")


async def delete(saver: FencedSaver, thread_id: str) -> None:
    await saver.adelete_thread(thread_id)


WRITES = [put, put_blobs, put_writes, delete]
WRONG = [{"epoch": 2}, {"epoch": 0}, {"worker_id": "w-b"}, {"job_id": "another"}]


@pytest.mark.parametrize("write", WRITES)
async def test_F1_a_stale_worker_adds_no_checkpoint(desk: Desk, write) -> None:
    claim = await desk.claim("t")
    await put_blobs(desk.saver(claim), "t")
    before = desk.view.dump()
    for wrong in WRONG:
        with pytest.raises(LeaseLost):
            await write(desk.saver(claim, **wrong), "t")
    await desk.rescue("w-a")
    after_rescue = desk.view.dump()
    with pytest.raises(LeaseLost):
        await write(desk.saver(claim), "t")
    assert desk.view.dump() == after_rescue
    assert {**after_rescue, "jobs": []} == {**before, "jobs": []}


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "interrupted"])
async def test_F1_the_fence_closes_when_the_job_leaves_running(desk: Desk, state) -> None:
    claim = await desk.claim("t")
    # The same epoch and worker, so that nothing but the state can hold it off.
    desk.view.rows("UPDATE jobs SET state = %s WHERE job_id = %s", state, claim.job_id)
    before = desk.view.dump()
    for write in WRITES:
        with pytest.raises(LeaseLost):
            await write(desk.saver(claim), "t")
    assert desk.view.dump() == before


async def test_F1_a_run_may_write_its_own_thread_only(desk: Desk) -> None:
    claim, other = await desk.claim("t"), await desk.claim("u", "w-b")
    await put(desk.saver(other), "u")
    before = desk.view.dump()
    for write in WRITES:
        with pytest.raises(LeaseLost):
            await write(desk.saver(claim), "u")
        # Nor does the ledger let it if the worker itself has the thread wrong.
        with pytest.raises(LeaseLost):
            await write(desk.saver(claim, thread_id="u"), "u")
    assert desk.view.dump() == before


async def test_F1_a_writer_that_stopped_before_its_check_blocks_no_rescuer(desk: Desk, monkeypatch) -> None:
    claim = await desk.claim("t")
    written, go_on = asyncio.Event(), asyncio.Event()
    execute = AsyncCursor.execute

    async def paused(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:
        if "assert_fence" in str(query):
            # Everything before the check is on the server and done, nothing is committed.
            cursor.connection.pgconn.send_flush_request()
            cursor.connection.pgconn.flush()
            written.set()
            await go_on.wait()
        return await execute(cursor, query, *args, **more)

    monkeypatch.setattr(AsyncCursor, "execute", paused)
    writing = asyncio.create_task(put_blobs(desk.saver(claim), "t"))
    await written.wait()
    inserted = "SELECT 1 FROM pg_locks JOIN pg_class c ON c.oid = relation WHERE c.relname = %s AND mode = %s"
    await until(lambda: desk.view.rows(inserted, "checkpoint_blobs", "RowExclusiveLock") or None, "the write is done")
    async with asyncio.timeout(1.5):
        rescued = await desk.rescue("w-a")
    assert [row["job_id"] for row in rescued] == [claim.job_id]
    go_on.set()
    with pytest.raises(LeaseLost):
        await writing
    assert desk.view.dump("checkpoints", "checkpoint_blobs") == {"checkpoints": [], "checkpoint_blobs": []}


async def test_F3_a_writer_that_stands_still_is_ended_by_the_server(desk: Desk, database_url, monkeypatch) -> None:
    """Nobody has to take its worker for dead before its locks are free again."""
    claim = await desk.claim("t")
    go_on = asyncio.Event()
    execute = AsyncCursor.execute

    async def paused(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:
        found = await execute(cursor, query, *args, **more)
        if "assert_fence" in str(query):
            # Now the job's row is locked, and no Sync follows.
            cursor.connection.pgconn.send_flush_request()
            cursor.connection.pgconn.flush()
            await go_on.wait()
        return found

    monkeypatch.setattr(AsyncCursor, "execute", paused)
    options = "-c search_path=threadline,public"
    async with Database(database_url, application_name="slow", transaction_timeout=1, options=options) as slow:
        await slow.ready()
        fence = Fence(claim.job_id, "t", claim.epoch, claim.worker_id)
        writing = asyncio.create_task(put_blobs(FencedSaver(slow.pool, fence, desk.queries), "t"))
        locked = "SELECT 1 FROM pg_locks WHERE relation = 'jobs'::regclass AND mode = 'RowShareLock'"
        await until(lambda: desk.view.rows(locked) or None, "it holds the job's row")
        await until(lambda: not desk.view.rows(locked) or None, "the server has ended it", limit=5)
        go_on.set()
        with pytest.raises(CheckpointsAway):
            await writing
    assert desk.view.dump("checkpoints", "checkpoint_blobs") == {"checkpoints": [], "checkpoint_blobs": []}


async def test_F3_only_who_asks_for_it_has_a_transaction_timeout(database_url) -> None:
    """Migrations and restoring take their time, and servers before 17 know no such setting."""
    shown = "SHOW transaction_timeout"
    async with Database(database_url, application_name="free") as free:
        assert (await free.row(shown))["transaction_timeout"] == "0"
        async with await free.connect() as connection:
            assert (await (await connection.execute(shown)).fetchone())["transaction_timeout"] == "0"
    async with Database(database_url, application_name="bound", transaction_timeout=1.5) as bound:
        assert (await bound.row(shown))["transaction_timeout"] == "1500ms"
        async with await bound.connect() as connection:
            assert (await (await connection.execute(shown)).fetchone())["transaction_timeout"] == "1500ms"
        with bound.connect_blocking() as blocking:
            assert blocking.execute(shown).fetchone()["transaction_timeout"] == "1500ms"
        old: Any = SimpleNamespace(info=SimpleNamespace(server_version=160_004))
        assert bound._limiting(old) is None


async def test_F1_a_lost_lease_surfaces_from_the_graph_and_nothing_is_written(desk: Desk) -> None:
    claim = await desk.claim("t")
    ran: list[int] = []

    async def step(state: Steps) -> dict[str, Any]:
        ran.append(len(state["done"]))
        if len(ran) == 2:
            await desk.rescue("w-a")
        return {"done": [len(state["done"])]}

    graph = looping(step).compile(checkpointer=desk.saver(claim))
    with pytest.raises(LeaseLost):
        await graph.ainvoke({"done": [], "until": 5}, config("t"), durability="sync")
    assert ran == [0, 1]
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.values["done"] == [0]


async def test_F1_commits_are_heard_after_they_are_durable_and_in_order(desk: Desk) -> None:
    claim = await desk.claim("t")
    commits: list[Any] = []

    async def step(state: Steps) -> dict[str, Any]:
        return {"done": [len(state["done"])]}

    graph = looping(step).compile(checkpointer=desk.saver(claim, commits))
    await graph.ainvoke({"done": [], "until": 3}, config("t"), durability="sync")
    assert [commit.step for commit in commits] == [-1, 0, 1, 2, 3]
    stored = desk.view.rows("SELECT checkpoint_id FROM checkpoints ORDER BY checkpoint_id")
    assert [commit.checkpoint_id for commit in commits] == [row["checkpoint_id"] for row in stored]


async def test_F1_task_paths_are_kept(desk: Desk) -> None:
    """LangGraph looks for `task_path` in the signature of the override; without it parallel writes lose their order."""
    assert "task_path" in inspect.signature(FencedSaver.aput_writes).parameters
    claim = await desk.claim("t")

    async def step(state: Steps) -> dict[str, Any]:
        return {"done": [len(state["done"])]}

    await looping(step).compile(checkpointer=desk.saver(claim)).ainvoke({"done": [], "until": 1}, config("t"))
    assert desk.view.rows("SELECT 1 FROM checkpoint_writes WHERE task_path <> ''")


async def test_F1_a_lost_connection_is_no_failure_of_the_graph(desk: Desk) -> None:
    claim = await desk.claim("t")
    saver = desk.saver(claim)
    await put(saver, "t")
    desk.view.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'desk' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(CheckpointsAway):
        await put(saver, "t")


async def test_F1_what_the_database_refuses_for_good_stays_an_error(desk: Desk) -> None:
    claim = await desk.claim("t")
    desk.view.rows("ALTER TABLE checkpoints ADD CONSTRAINT no CHECK (false) NOT VALID")
    with pytest.raises(psycopg.errors.CheckViolation):
        await put(desk.saver(claim), "t")


async def test_F4_ids_never_fall_below_the_head(desk: Desk, monkeypatch) -> None:
    first = await desk.claim("t")
    ran: list[int] = []

    async def step(state: Steps) -> dict[str, Any]:
        ran.append(len(state["done"]))
        return {"done": [len(state["done"])]}

    graph = looping(step)
    await graph.compile(checkpointer=desk.saver(first)).ainvoke(
        {"done": [], "until": 4}, config("t"), interrupt_after=["step"], durability="sync"
    )
    await desk.rescue("w-a")
    # Another process, a minute behind.
    now = checkpoint_clock.time.time_ns()
    monkeypatch.setattr(checkpoint_clock, "_last_v6_timestamp", None)
    monkeypatch.setattr(checkpoint_clock.time, "time_ns", lambda: now - 60_000_000_000)
    second = await desk.ledger.claim(first.job_id, await desk.register("w-b"))
    raise_checkpoint_clock(second.newest_at_claim)
    ran.clear()
    result = await graph.compile(checkpointer=desk.saver(second)).ainvoke(None, config("t"), durability="sync")
    assert (ran, result["done"]) == ([1, 2, 3], [0, 1, 2, 3])
    head = await desk.saver(second).aget_tuple({"configurable": {"thread_id": "t"}})
    assert head.checkpoint["channel_values"]["done"] == [0, 1, 2, 3]


def test_F4_the_clock_is_only_raised(monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_clock, "_last_v6_timestamp", None)
    raise_checkpoint_clock(None)
    old = str(checkpoint_clock.uuid6())
    newest = checkpoint_clock._last_v6_timestamp = checkpoint_clock._last_v6_timestamp + 10**9
    raise_checkpoint_clock(old)
    assert checkpoint_clock._last_v6_timestamp == newest


def looping(step: Any) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Steps)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if len(state["done"]) >= state["until"] else "step")
    return graph
