"""O4: a rolled-back job has never been: heads, their pending writes and everything above them are as before it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from threadline import Client, JobCancelled
from threadline.contract.keys import Keys
from threadline.contract.states import State
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries

TABLES = ("checkpoints", "checkpoint_writes", "checkpoint_blobs")


def _dump(database_url: str, thread_id: str, tables: tuple[str, ...] = TABLES) -> dict[str, list[Any]]:
    with psycopg.connect(database_url) as connection:
        return {
            table: connection.execute(
                f"SELECT * FROM threadline.{table} WHERE thread_id = %s ORDER BY 1, 2, 3, 4, 5",  # type: ignore[arg-type]
                (thread_id,),
            ).fetchall()
            for table in tables
        }


async def _reached(job: Any, event_id: str) -> None:
    async for event in job.events():
        if event.id == event_id:
            return


async def test_O4_rollback_restores_the_thread_and_the_next_job_runs_from_there(
    client: Client, workers: Any, env: dict[str, str], database_url: str
) -> None:
    workers()
    first = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="t")
    assert (await first.result(timeout=30))["done"] == [0, 1]
    before = _dump(database_url, "t", ("checkpoints", "checkpoint_writes"))

    gate = Path(env["TEST_GATES"]) / "t.5"
    gate.parent.mkdir(exist_ok=True)
    gate.touch()
    second = await client.enqueue("steps", {"done": [9], "until": 99}, thread_id="t")
    await _reached(second, "1-3")  # two steps of it are shown, and it stands before its third
    third = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t", on_busy="rollback")
    with pytest.raises(JobCancelled, match="replaced"):
        await second.result(timeout=30)
    assert (await third.result(timeout=30))["done"] == [0, 1, 2]
    kept = _dump(database_url, "t", ("checkpoints",))["checkpoints"]
    assert [row for row in kept if row in before["checkpoints"]] == before["checkpoints"]


async def test_O4_cancel_with_rollback_leaves_the_checkpoints_as_they_were(
    client: Client, workers: Any, env: dict[str, str], database_url: str
) -> None:
    worker = workers()
    await (await client.enqueue("steps", {"done": [], "until": 2}, thread_id="t")).result(timeout=30)
    before = _dump(database_url, "t", ("checkpoints", "checkpoint_writes"))
    gate = Path(env["TEST_GATES"]) / "t.3"
    gate.parent.mkdir(exist_ok=True)
    gate.touch()
    job = await client.enqueue("steps", {"done": [], "until": 9}, thread_id="t")
    await _reached(job, "1-2")
    assert _dump(database_url, "t", ("checkpoints", "checkpoint_writes")) != before
    await job.cancel(rollback=True)
    worker.logged("thread.restored")
    assert _dump(database_url, "t", ("checkpoints", "checkpoint_writes")) == before


@pytest.fixture
async def ledger(database_url: str) -> Any:
    async with Database(database_url, application_name="test") as database:
        made = Custody(database, Queries(Keys().schema))
        await database.rows(
            made.queries["register"],
            {
                "worker_id": "w",
                "lock_key": 1,
                "version": "0",
                "agents": '{"steps": {"text_input": false}}',
                "concurrency": 1,
                "queues": ["default"],
            },
        )
        yield made


def _write(database_url: str, checkpoint_id: str, *writes: str, ns: str = "") -> None:
    """A checkpoint with pending writes, as LangGraph's saver leaves them."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO threadline.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint)"
            " VALUES ('t', %s, %s, '{}') ON CONFLICT DO NOTHING",
            (ns, checkpoint_id),
        )
        for task in writes:
            connection.execute(
                "INSERT INTO threadline.checkpoint_writes"
                " (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)"
                " VALUES ('t', %s, %s, %s, 0, 'c', 'msgpack', 'x')",
                (ns, checkpoint_id, task),
            )
        connection.execute(
            "INSERT INTO threadline.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)"
            " VALUES ('t', %s, 'c', %s, 'msgpack', 'x') ON CONFLICT DO NOTHING",
            (ns, checkpoint_id),
        )


async def _claimed(client: Client, ledger: Custody) -> Claim:
    job = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t")
    claim = await ledger.claim(job.job_id, "w")
    assert isinstance(claim, Claim)
    return claim


async def test_O4_pending_writes_of_the_heads_of_every_namespace_come_back_and_newer_ones_go(
    client: Client, ledger: Custody, database_url: str
) -> None:
    _write(database_url, "1a", "old")
    _write(database_url, "1b", "question")
    _write(database_url, "1c", "inner", ns="tools:x")
    before = _dump(database_url, "t")
    claim = await _claimed(client, ledger)
    _write(database_url, "1b", "approval")  # an answer among the head's writes: it must not survive
    _write(database_url, "1c", "more", ns="tools:x")
    _write(database_url, "1d", "new")
    _write(database_url, "1e", "new", ns="tools:y")
    await ledger.cancel(claim.job_id, rollback=True)
    await ledger.finish(claim, "cancelled", code="requested")  # type: ignore[arg-type]

    waiting = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t")
    assert await ledger.claim(waiting.job_id, "w") is None, "no claims while the thread is being restored"
    assert await ledger.restore() == "t"
    after = _dump(database_url, "t")
    assert after["checkpoints"] == before["checkpoints"]
    assert after["checkpoint_writes"] == before["checkpoint_writes"]
    namespaces = [row[1] for row in after["checkpoint_blobs"]]
    assert namespaces == ["", "", "", "tools:x"], "no value of a namespace that is gone"
    assert await ledger.restore() is None
    assert isinstance(await ledger.claim(waiting.job_id, "w"), Claim)


async def test_O4_any_end_as_cancelled_marks_the_thread(client: Client, ledger: Custody, database_url: str) -> None:
    """A rescue, a release or a claim that finds the request (L8) marks it as finish does."""
    claim = await _claimed(client, ledger)
    await ledger.cancel(claim.job_id, rollback=True)
    await ledger.database.rows(ledger.queries["rescue"], {"worker_id": "w", "limit": 3, "silent_since": None})
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        row = connection.execute("SELECT restoring FROM threadline.threads WHERE thread_id = 't'").fetchone()
    assert row == {"restoring": claim.job_id}
    assert await ledger.restore("t") == "t"


async def test_O4_a_job_that_never_ran_has_nothing_to_roll_back(client: Client, ledger: Custody) -> None:
    job = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t")
    await job.cancel(rollback=True)
    assert (await job.status()).state == "cancelled"
    assert await ledger.restore() is None


async def test_O4_the_base_is_taken_once_and_a_pick_up_keeps_it(
    client: Client, ledger: Custody, database_url: str
) -> None:
    _write(database_url, "1a")
    before = _dump(database_url, "t")
    claim = await _claimed(client, ledger)
    _write(database_url, "1b")
    await ledger.release(claim, "drain")
    again = await ledger.claim(claim.job_id, "w")
    assert isinstance(again, Claim)
    await ledger.cancel(claim.job_id, rollback=True)
    await ledger.finish(again, "cancelled", code="requested")  # type: ignore[arg-type]
    await ledger.restore()
    assert _dump(database_url, "t", ("checkpoints",))["checkpoints"] == before["checkpoints"]


async def test_O4_a_question_that_is_open_again_can_be_rolled_back_in_its_turn(
    client: Client, ledger: Custody, database_url: str
) -> None:
    """Two answers deep: each rollback leaves the job before it waiting, with its own way back."""
    _write(database_url, "1a", "old")
    before = _dump(database_url, "t")
    asking = await _claimed(client, ledger)
    _write(database_url, "1b", "question")
    asked = _dump(database_url, "t")
    await ledger.finish(asking, State.INTERRUPTED, interrupts=[{"id": "q", "value": 1}])
    first = await _answered(client, ledger)
    _write(database_url, "1b", "approval")
    _write(database_url, "1c", "another question")
    await ledger.finish(first, State.INTERRUPTED, interrupts=[{"id": "r", "value": 1}])
    second = await _answered(client, ledger)
    _write(database_url, "1d")
    await ledger.cancel(second.job_id, rollback=True)
    await ledger.finish(second, State.CANCELLED, code="requested")
    await ledger.restore("t")
    for waiting, then in ((first, asked), (asking, before)):
        assert [one.job_id for one in await client.inbox()] == [waiting.job_id]
        await ledger.cancel(waiting.job_id, rollback=True)
        await ledger.restore("t")
        now = _dump(database_url, "t", ("checkpoints", "checkpoint_writes"))
        assert now == {table: then[table] for table in now}
    assert await client.inbox() == []


async def _answered(client: Client, ledger: Custody) -> Claim:
    job = await client.resume("t", "yes")
    claim = await ledger.claim(job.job_id, "w")
    assert isinstance(claim, Claim)
    return claim


async def test_O4_a_rollback_of_a_question_and_an_answer_to_it_take_turns(
    client: Client, ledger: Custody, database_url: str
) -> None:
    """Both lock the thread, then the job: in another order they would be a deadlock."""
    asking = await _claimed(client, ledger)
    await ledger.finish(asking, State.INTERRUPTED, interrupts=[{"id": "q", "value": 1}])
    async with await psycopg.AsyncConnection.connect(database_url) as answering:
        await answering.execute("SELECT FROM threadline.threads WHERE thread_id = 't' FOR UPDATE")
        cancelling = asyncio.create_task(ledger.cancel(asking.job_id, rollback=True))
        await asyncio.wait({cancelling}, timeout=0.5)
        assert not cancelling.done()
        await answering.execute("SELECT FROM threadline.jobs WHERE job_id = %s FOR UPDATE NOWAIT", (asking.job_id,))
        await answering.execute("UPDATE threadline.jobs SET answered_by = 'a' WHERE job_id = %s", (asking.job_id,))
        await answering.commit()
    assert (await cancelling).state == "interrupted"
    left = await ledger.database.rows("SELECT job_id FROM threadline.cancel_requests")
    assert left == [], "or the question would be rolled back as soon as its answer is taken back"
