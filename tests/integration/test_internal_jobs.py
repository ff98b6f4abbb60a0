"""L9: an operation on a thread is done once or not at all, by a worker that holds the thread, whoever dies or races."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncCursor

from support.desk import Desk, desk_on
from support.gates import until
from support.ledger import Bench, bench_on, cloned, emptied
from support.nursery import called
from support.servers import ServerUrls
from support.travel_graphs import diary
from support.workers import Workers
from threadline import Client, JobFailed, ThreadBusy
from threadline.contract.job import new_id
from threadline.contract.states import Code, State
from threadline.ledger.custody import Claim
from threadline.ledger.database import Database
from threadline.ledger.internal import Asked, InternalJobs
from threadline_worker.agents.registry import Agent
from threadline_worker.checkpoints import CheckpointsAway, LeaseLost
from threadline_worker.internal.fork import fork
from threadline_worker.internal.operate import OPERATIONS
from threadline_worker.internal.scope import Scope
from threadline_worker.internal.update_state import update_state
from threadline_worker.serialise import jsonable

AGENTS = "diary=support.travel_graphs:diary"
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.2", "THREADLINE_LEASE_SECONDS": "5"}


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared), size=20) as made:
        yield made


def asked(operation: str, thread: str, target: str | None = None, **arguments: Any) -> Asked:
    return Asked(operation, thread, target or thread, arguments, None, None, 60)


#: Whoever writes a checkpoint needs longer than the limit of the test's worker.
_SLEEPY = """
CREATE OR REPLACE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(1.2); RETURN NULL; END $$;
CREATE TRIGGER sleepy AFTER INSERT ON checkpoints EXECUTE FUNCTION sleepy();
"""
UPDATE = {"values": {"lines": ["by hand"]}, "as_node": None}


async def ask(bench: Bench, *what: str, **arguments: Any) -> str:
    stored, _ = await InternalJobs(bench.ledger).ask(new_id(), asked(*what, **arguments), dispatching=True)
    return stored.job_id


async def idle(bench: Bench, thread: str = "t") -> str:
    """A thread with an ended job."""
    await bench.end((await bench.enqueue(thread_id=thread)).job_id, "succeeded")
    return thread


async def test_L9_of_two_updates_at_once_one_is_accepted(bench: Bench) -> None:
    await idle(bench)
    tries = await asyncio.gather(
        *(ask(bench, "update_state", "t", **UPDATE) for _ in range(20)), return_exceptions=True
    )
    accepted = [found for found in tries if isinstance(found, str)]
    assert len(accepted) == 1
    assert {type(found) for found in tries if not isinstance(found, str)} == {ThreadBusy}
    claim = await bench.claim(accepted[0])
    with pytest.raises(ThreadBusy, match=f"{accepted[0]} is running"):
        await ask(bench, "update_state", "t", **UPDATE)
    assert await bench.ledger.finish(claim, State.SUCCEEDED, result={})
    assert await ask(bench, "update_state", "t", **UPDATE)


async def test_L9_an_update_waits_for_an_enqueue_under_way_and_is_refused(bench: Bench) -> None:
    await idle(bench)
    async with bench.ledger.database.connection() as caller, caller.transaction():
        job = await bench.enqueue(thread_id="t", connection=caller)
        update = asyncio.create_task(ask(bench, "update_state", "t", **UPDATE))
        await until(lambda: _waits(bench), "the update waits")
    with pytest.raises(ThreadBusy, match=job.job_id):
        await update


async def test_L9_an_enqueue_that_waits_for_an_update_runs_behind_it(bench: Bench) -> None:
    """Also when it has drawn the earlier place."""
    await idle(bench)
    params = {
        "job_id": new_id(), "operation": "update_state", "thread_id": "t", "target": "t", "user_id": None,
        "agent": None, "input": json.dumps(UPDATE), "seconds": 60, "lease_seconds": 15, "dispatching": True,
    }  # fmt: skip
    async with bench.ledger.database.connection() as caller, caller.transaction():
        await caller.execute(b"SELECT FROM threadline.threads WHERE thread_id = 't' FOR UPDATE")
        enqueue = asyncio.create_task(bench.enqueue(thread_id="t"))
        await until(lambda: _waits(bench), "the enqueue waits, with its place in hand")
        await caller.execute(bench.ledger.queries["internal"], params)
    job = await enqueue
    assert (await bench.row(job.job_id))["seq"] < (await bench.row(params["job_id"]))["seq"]
    assert await bench.ledger.claim(job.job_id, "w1") is None
    claim = await bench.claim(params["job_id"])
    assert await bench.ledger.claim(job.job_id, "w2") is None
    assert await bench.ledger.finish(claim, State.SUCCEEDED, result={})
    assert await bench.claim(job.job_id)


async def test_L9_replacing_jobs_leaves_an_update_alone(bench: Bench) -> None:
    await idle(bench)
    update = await ask(bench, "update_state", "t", **UPDATE)
    job = await bench.enqueue(thread_id="t", on_busy="rollback")
    assert (await bench.row(update))["state"] == "queued"
    await bench.ledger.finish(await bench.claim(update), State.SUCCEEDED, result={})
    assert await bench.claim(job.job_id)


async def test_L9_an_update_is_no_later_job_for_a_retry(bench: Bench) -> None:
    failed = await bench.enqueue(thread_id="t")
    await bench.end(failed.job_id, "failed")
    await bench.ledger.finish(await bench.claim(await ask(bench, "update_state", "t", **UPDATE)), State.SUCCEEDED)
    assert (await bench.ledger.retry(failed.job_id)).state == "queued"


async def test_L9_a_worker_of_an_older_release_does_not_claim_it(bench: Bench) -> None:
    await idle(bench)
    update = await ask(bench, "update_state", "t", **UPDATE)
    await bench.sql("UPDATE threadline.workers SET operations = '{state}' WHERE worker_id = 'w1'")
    assert await bench.ledger.claim(update, "w1") is None
    assert (await bench.row(update))["epoch"] == 0
    assert await bench.claim(update, "w2")


async def test_a_worker_registers_the_operations_that_it_knows(bench: Bench) -> None:
    [row] = await bench.sql("SELECT operations FROM threadline.workers WHERE worker_id = 'w1'")
    assert sorted(row["operations"]) == sorted(OPERATIONS)


async def test_a_fork_that_never_started_leaves_no_thread(bench: Bench) -> None:
    await idle(bench)
    jobs = InternalJobs(bench.ledger)
    for target, started, stays in (("unstarted", False, False), ("refused", True, False), ("unsure", True, True)):
        job_id = await ask(bench, "fork", "t", target, checkpoint_id=None)
        if started:
            code = Code.INVALID_INPUT if target == "refused" else Code.TIMEOUT
            assert await bench.ledger.finish(await bench.claim(job_id), State.FAILED, code=code)
        else:
            await jobs.cancel(job_id)
        await jobs.forget(job_id)
        assert bool(await bench.sql("SELECT 1 AS one FROM threadline.threads WHERE thread_id = %s", target)) is stays
    used = await ask(bench, "fork", "t", "used", checkpoint_id=None)
    behind = await bench.enqueue(thread_id="used")
    await jobs.cancel(used)
    await jobs.forget(used)
    assert await bench.claim(behind.job_id)


async def test_L9_a_stale_worker_changes_nothing(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GATES", str(tmp_path))
    emptied(shared)
    async with desk_on(shared) as desk:
        first = await desk.claim("t")
        await _compiled(desk, first).ainvoke({"lines": ["turn 0"], "seen": []}, {"configurable": {"thread_id": "t"}})
        await desk.ledger.finish(first, State.SUCCEEDED, result={})
        desk.view.rows("""UPDATE workers SET agents = '{"steps": {}}'""")
        (tmp_path / "t.edge").touch()
        updating = await _scope(desk, "update_state", "t", "t", **UPDATE)
        task = asyncio.create_task(update_state(updating, {**UPDATE, "as_node": "first"}))
        await until((tmp_path / "t.edge-reached").exists, "it has read, and is about to write")
        forking = await _scope(desk, "fork", "t", "t2", checkpoint_id=None)
        before = desk.view.dump("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        assert len(await desk.rescue("w-a")) == 2
        (tmp_path / "t.edge").unlink()
        with pytest.raises(LeaseLost):
            await task
        with pytest.raises(LeaseLost):
            await fork(forking, {"checkpoint_id": None})
        assert desk.view.dump("checkpoints", "checkpoint_blobs", "checkpoint_writes") == before

        await desk.register("w-b")
        desk.view.rows("""UPDATE workers SET agents = '{"steps": {}}'""")
        again = await desk.ledger.claim(updating.claim.job_id, "w-b")
        assert isinstance(again, Claim)
        now = Scope(again, updating.agent, desk.ledger, desk.checkpoints.pool, "t")
        once = await update_state(now, {**UPDATE, "as_node": "first"})
        # Its worker died behind the commit: whoever comes next finds that it is done.
        assert await update_state(now, {**UPDATE, "as_node": "first"}) == once
        made = "SELECT count(*) AS n FROM checkpoints WHERE thread_id = 't' AND metadata ->> 'update_id' = %s"
        assert desk.view.rows(made, again.job_id) == [{"n": 1}]


async def test_F3_a_fork_may_copy_for_longer_than_a_write_and_its_lock_may_not_stand(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_GATES", str(tmp_path))
    emptied(shared)
    execute, go_on = AsyncCursor.execute, asyncio.Event()

    async def paused(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:
        found = await execute(cursor, query, *args, **more)
        if "assert_fence" in str(query):
            await go_on.wait()
        return found

    options = "-c search_path=threadline,public"
    async with (
        desk_on(shared) as desk,
        Database(shared, application_name="slow", transaction_timeout=1, options=options) as slow,
    ):
        await slow.ready()
        first = await desk.claim("t")
        await _compiled(desk, first).ainvoke({"lines": ["turn 0"], "seen": []}, {"configurable": {"thread_id": "t"}})
        await desk.ledger.finish(first, State.SUCCEEDED, result={})
        desk.view.rows("""UPDATE workers SET agents = '{"steps": {}}'""")
        forking = replace(await _scope(desk, "fork", "t", "t2", checkpoint_id=None), checkpoints=slow.pool)
        desk.view.rows(_SLEEPY)
        try:
            monkeypatch.setattr(AsyncCursor, "execute", paused)
            copying = asyncio.create_task(fork(forking, {"checkpoint_id": None}))
            locked = "SELECT 1 FROM pg_locks WHERE relation = 'jobs'::regclass AND mode = 'RowShareLock'"
            await until(lambda: desk.view.rows(locked) or None, "it has copied, and holds the job's row", limit=5)
            await until(lambda: not desk.view.rows(locked) or None, "the server has ended it", limit=5)
            go_on.set()
            with pytest.raises(CheckpointsAway):
                await copying
            assert (await fork(forking, {"checkpoint_id": None}))["thread_id"] == "t2"
        finally:
            desk.view.rows("DROP TRIGGER sleepy ON checkpoints")
        copied = "SELECT count(*) AS n FROM checkpoints WHERE thread_id = %s"
        assert desk.view.rows(copied, "t2") == desk.view.rows(copied, "t") != [{"n": 0}]


#: In the middle of the transaction, and behind its commit; SWEEP=all kills at every point.
POINTS = {"update_state": ["6", "8"], "fork": ["6", "8"], "compact": ["9", "16"]}


@pytest.mark.parametrize("operation", ["update_state", "fork", "compact"])
def test_L9_it_is_done_once_wherever_its_worker_is_killed(
    env: dict[str, str], operation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [] if os.environ.get("SWEEP") == "all" else POINTS[operation]
    asking = {**env, **QUICK, "THREADLINE_AGENTS": AGENTS}
    done = called([operation, *points], asking, module="support.travel_sweep", timeout=200)
    assert done.returncode == 0, done.stderr
    *killed, undisturbed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(killed) >= (len(points) or 6)
    assert undisturbed["state"] == "succeeded"
    assert all(point["killed"] for point in killed)
    assert undisturbed["made"] == (operation == "update_state")
    for point in killed:
        same = {name: value for name, value in point.items() if name not in {"point", "killed", "recovered"}}
        assert point["recovered"] == 0, point
        assert same == {name: undisturbed[name] for name in same}, point
    with capsys.disabled():
        print(f"\n{operation}: {len(killed)} crash points, 0 differences")  # noqa: T201 - a figure


async def test_R2_a_replay_branches_at_its_first_start_only(env: dict[str, str], client: Client) -> None:
    """Through the death of its worker; a checkpoint that is not there is refused."""
    gates = Path(env["TEST_GATES"])
    gates.mkdir()
    with Workers({**env, **QUICK, "THREADLINE_AGENTS": AGENTS}) as workers:
        first = workers.start()
        for turn in range(2):
            job = await client.enqueue("diary", {"lines": [f"turn {turn}"], "seen": []}, thread_id="t")
            await job.result(timeout=30)
        past = next(one for one in await client.history("t") if one["step"] == 3)
        assert (await client.state("t", checkpoint_id=past["checkpoint_id"]))["next"] == []
        (gates / "t.inner").touch()
        replay = await client.enqueue(
            "diary", {"lines": ["other turn 1"], "seen": []}, thread_id="t", checkpoint_id=past["checkpoint_id"]
        )
        await until(lambda: (gates / "effects").read_text().count("t inner") == 3, "it stands behind its first step")
        workers.start()
        first.kill()
        await until(lambda: (gates / "effects").read_text().count("t inner") == 4, "another has picked it up")
        (gates / "t.inner").unlink()
        assert (await replay.result(timeout=30))["lines"] == [
            "turn 0", "first of 0", "inner", "other turn 1", "first of 2", "inner",
        ]  # fmt: skip
        effects = (gates / "effects").read_text().splitlines()
        assert [effects.count(f"t {node}") for node in ("first", "inner", "last")] == [3, 4, 3]
        # A later job continues the branch; the other one stays where it was.
        lost = await client.enqueue("diary", {"lines": ["lost"]}, thread_id="t", checkpoint_id="1f1e4c6e-ede3-no")
        with pytest.raises(JobFailed, match="has no checkpoint 1f1e4c6e-ede3-no"):
            await lost.result(timeout=30)
        third = await client.enqueue("diary", {"lines": ["turn 2"], "seen": []}, thread_id="t")
        assert (await third.result(timeout=30))["lines"][3] == "other turn 1"


async def _waits(bench: Bench) -> bool:
    return bool(
        await bench.sql(
            "SELECT 1 AS waits FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


def _compiled(desk: Desk, claim: Claim) -> Any:
    return diary.compile(checkpointer=desk.saver(claim))


async def _scope(desk: Desk, operation: str, thread: str, target: str, **arguments: Any) -> Scope:
    """The operation in the hands of worker w-a."""
    what = Asked(operation, thread, target, arguments, None, "steps", 60)
    stored, _ = await InternalJobs(desk.ledger).ask(new_id(), what, dispatching=False)
    claim = await desk.ledger.claim(stored.job_id, "w-a")
    assert isinstance(claim, Claim)
    return Scope(claim, Agent("diary", diary.compile(), jsonable), desk.ledger, desk.checkpoints.pool, thread)
