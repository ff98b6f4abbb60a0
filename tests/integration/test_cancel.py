"""L8, O3: a running job ends at once when it is cancelled, at a step's end when another takes its place."""

from __future__ import annotations

import json
import time

import pytest
import redis

from support.desk import LedgerView
from support.gates import Gates, until
from threadline import Client, JobCancelled

ORDERS = {"THREADLINE_AGENTS": "steps=support.graphs:steps,orders=support.orders:orders"}


@pytest.mark.parametrize("way", ["redis_and_ledger", "ledger_alone"])
async def test_L8_cancel_ends_a_long_step_at_once(client, workers, env, database_url, way) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers(**ORDERS)
    gates.order("t", 1, "sleep 60")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    started = time.monotonic()
    async with Client(database_url=database_url) as without_redis:
        asking = client if way == "redis_and_ledger" else without_redis
        await (await asking.job(job.job_id)).cancel()
    with pytest.raises(JobCancelled, match="requested"):
        await job.result(timeout=10)
    assert time.monotonic() - started < 2
    # Consistent and resumable: what was committed is there, and a retry goes on behind it.
    assert (await job.cancel()).state == "cancelled"
    gates.forget("t", 1)
    await client.retry(job.job_id)
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 1, 2]
    assert view.job(job.job_id)["failures"] == 0


async def test_L8_the_control_channel_alone_is_quick(client, workers, env, database_url, redis_url) -> None:
    """With a beat every 5 s and no notice from Postgres, as behind a transaction pooler."""
    gates, view = Gates(env), LedgerView(database_url)
    workers(**ORDERS, THREADLINE_HEARTBEAT_SECONDS="5")
    gates.order("t", 1, "sleep 60")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    view.rows("INSERT INTO cancel_requests (job_id, code) VALUES (%s, 'requested')", job.job_id)
    with redis.Redis.from_url(redis_url) as connection:
        connection.publish("threadline:control", json.dumps({"cancel": job.job_id}))
    started = time.monotonic()
    await until(lambda: view.job(job.job_id)["state"] == "cancelled" or None, "it is cancelled")
    assert time.monotonic() - started < 2


async def test_O3_interrupt_stops_at_a_step_and_the_successor_sees_what_was_committed(client, workers, env) -> None:
    gates = Gates(env)
    worker = workers(**ORDERS)
    gates.close("t", 1)
    first = await client.enqueue("steps", {"done": [], "until": 9}, thread_id="t")
    await gates.begun("t", 1)
    second = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t", on_busy="interrupt")
    worker.logged("job.cancel")
    gates.open("t", 1)
    with pytest.raises(JobCancelled, match="replaced"):
        await first.result(timeout=10)
    assert await second.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 2]
