"""P1, P3: every transition's event reaches the log, whoever made it and whatever the log already holds."""

from __future__ import annotations

import redis

from support.desk import LedgerView, desk_on
from support.gates import Gates, until

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}


async def test_P1_what_a_dead_worker_did_not_announce_another_does(client, workers, env, database_url) -> None:
    view = LedgerView(database_url)
    async with desk_on(database_url) as desk:
        claim = await desk.claim("t", "w-dead")
        await desk.ledger.finish(claim, "succeeded", result={"x": 1})
    workers(**QUICK)
    job = await client.job(claim.job_id)
    await until(lambda: view.job(claim.job_id)["announced"] == 2 or None, "the sweep has announced it")
    events = [(event.id, event.type) async for event in job.events()]
    assert events[-1] == ("2-1", "succeeded")
    assert view.job(claim.job_id)["announced"] == 2


async def test_P3_a_log_that_is_ahead_of_the_ledger_lifts_the_epoch(
    client, workers, env, database_url, redis_url
) -> None:
    """A restored backup: the log knows epoch 7, the ledger none."""
    gates, view = Gates(env), LedgerView(database_url)
    job = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="t")
    with redis.Redis.from_url(env["REDIS_URL"]) as connection:
        connection.xadd(f"threadline:events:{{{job.job_id}}}", {"e": b'{"old": 1}'}, id="7-3")
    workers(**QUICK)
    assert await job.result(timeout=10) == {"done": [0, 1], "until": 2}
    assert view.job(job.job_id)["epoch"] == 9
    assert gates.steps("t") == [0, 1]
    await until(lambda: view.job(job.job_id)["announced"] == 9 or None, "the end is announced")
    ids = [event.id async for event in job.events()]
    assert ids[-4:] == ["8-1", "8-2", "8-3", "9-1"]
