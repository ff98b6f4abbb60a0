"""A soft stop gives every job back uncharged, within its time, and tells why; a second signal does not wait."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time

import psycopg
import pytest
from psycopg import AsyncConnection

from support.desk import LedgerView
from support.gates import Gates, until
from threadline import Client

ORDERS = {"THREADLINE_AGENTS": "steps=support.graphs:steps,orders=support.orders:orders"}


#: In the middle of a claim: it has seen who drains, and nothing is committed.
HOLD_CLAIMS = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$
"""


async def test_drain_hands_over_within_two_seconds_and_charges_nothing(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    first = workers()
    gates.close("t", 1)
    job = await client.enqueue("steps", {"done": [], "until": 4}, thread_id="t")
    await gates.begun("t", 1)
    second = workers()
    first.process.terminate()
    first.logged("worker.draining")
    assert first.status("readyz") == (503, ["draining"])
    # Nobody gets new work from it, although it lives and has free slots.
    other = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="u")
    assert await other.result(timeout=10)
    assert (await gates.begun("u", 0)).pid == second.pid
    let_go = time.monotonic()
    gates.open("t", 1)
    assert (await gates.begun("t", 2)).pid == second.pid
    assert time.monotonic() - let_go < 2
    assert first.process.wait(10) == 0
    assert await job.result(timeout=10) == {"done": [0, 1, 2, 3], "until": 4}
    assert gates.steps("t") == [0, 1, 2, 3]  # the drain waited for the step's end
    row = view.job(job.job_id)
    assert (row["failures"], row["stalls"]) == (0, 0)
    assert [event.type async for event in job.events()].count("gap") == 0
    assert view.rows("SELECT worker_id FROM workers") == [{"worker_id": second.worker_id}]


async def test_drain_cuts_what_outlasts_its_grace_and_charges_nothing(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers(THREADLINE_DRAIN_SECONDS="0.5", **ORDERS)
    gates.order("t", 1, "once sleep 60")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    assert worker.terminate(timeout=5) == 0
    row = view.job(job.job_id)
    assert (row["state"], row["failures"], row["stalls"], row["code"]) == ("queued", 0, 0, "drain")
    workers(**ORDERS)
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 1, 2]


async def test_a_second_signal_stops_at_once(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers(**ORDERS)  # the grace is 25 s
    gates.order("t", 1, "sleep 60")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    worker.signal(signal.SIGINT)
    worker.logged("worker.draining")
    started = time.monotonic()
    worker.signal(signal.SIGINT)
    assert worker.process.wait(10) == 0
    assert time.monotonic() - started < 3
    row = view.job(job.job_id)
    assert (row["state"], row["failures"], row["stalls"]) == ("queued", 0, 0)


async def test_a_claim_under_way_when_the_drain_begins_is_drained_too(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers()
    view.rows(HOLD_CLAIMS)
    view.rows("CREATE TRIGGER hold BEFORE INSERT ON job_bases FOR EACH ROW EXECUTE FUNCTION hold()")
    steps = await AsyncConnection.connect(database_url)
    with psycopg.connect(database_url, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(42)")
        job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t")
        await until(lambda: waits(view, "L6, F5"), "the claim waits")  # its file's first words
        # Behind the claim: the run that it makes cannot end before the worker might.
        holding = asyncio.create_task(steps.execute("LOCK TABLE threadline.checkpoints IN ACCESS EXCLUSIVE MODE"))
        await until(lambda: waits(view, "LOCK TABLE"), "the run will wait")
        worker.process.terminate()
        worker.logged("worker.draining")
        lock.execute("SELECT pg_advisory_unlock(42)")
    await holding
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(1.5)
    await steps.close()
    assert worker.process.wait(5) == 0
    row = view.job(job.job_id)
    assert (row["state"], row["transition"], row["code"]) == ("queued", "release", "drain")
    assert (row["failures"], row["stalls"], gates.steps("t")) == (0, 0, [])
    workers()
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}


def waits(view: LedgerView, words: str) -> bool:
    """Whether a statement with these words waits for a lock."""
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        " AND strpos(query, %s) > 0"
    )
    return bool(view.rows(query, words))


async def test_burst_ends_once_nothing_is_left_also_in_redis_alone(client, workers, redis_url, database_url) -> None:
    view = LedgerView(database_url)
    async with Client(redis_url=redis_url) as producer:
        carried = await producer.enqueue("steps", {"done": [], "until": 2})
    stored = await client.enqueue("steps", {"done": [], "until": 2})
    worker = workers("--burst", wait=False)
    assert worker.process.wait(30) == 0
    assert [view.job(job.job_id)["state"] for job in (carried, stored)] == ["succeeded", "succeeded"]
