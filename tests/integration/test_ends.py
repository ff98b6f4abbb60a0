"""What may win over a run's own end, who may claim, and what a reader hears of events that never arrived."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from threadline import Client, JobFailed
from threadline.contract.codec import loads
from threadline.contract.events import Event, decode_event, encode_event
from threadline.contract.keys import Keys
from threadline.contract.states import State
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.log.append import EventLog
from threadline.log.follow import follow


@pytest.fixture
async def ledger(database_url: str) -> Any:
    async with Database(database_url, application_name="test") as database:
        made = Custody(database, Queries(Keys().schema))
        await _register(made, "w", '{"steps": {"text_input": false}}')
        yield made


async def _register(ledger: Custody, worker_id: str, agents: str) -> None:
    params = {"worker_id": worker_id, "lock_key": hash(worker_id), "version": "0", "agents": agents, "concurrency": 1}
    params["queues"] = ["default"]
    await ledger.database.rows(ledger.queries["register"], params)


async def _claimed(client: Client, ledger: Custody) -> Claim:
    job = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t")
    claim = await ledger.claim(job.job_id, "w")
    assert isinstance(claim, Claim)
    return claim


async def test_L8_a_job_that_comes_to_wait_for_a_person_while_a_cancel_is_pending_ends(
    client: Client, ledger: Custody
) -> None:
    claim = await _claimed(client, ledger)
    after = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t", on_busy="interrupt")
    row = await ledger.finish(claim, State.INTERRUPTED, interrupts=[{"id": "i", "value": "sure?"}])
    assert row is not None
    assert (row["state"], row["code"], row["interrupts"]) == ("cancelled", "replaced", None)
    assert isinstance(await ledger.claim(after.job_id, "w"), Claim), "nobody would have answered: the thread is free"


async def test_O4_a_rollback_that_was_accepted_wins_over_the_jobs_own_end(client: Client, ledger: Custody) -> None:
    claim = await _claimed(client, ledger)
    await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t", on_busy="rollback")
    row = await ledger.finish(claim, State.SUCCEEDED, result={"done": [0]})
    assert row is not None
    assert (row["state"], row["code"], row["result"]) == ("cancelled", "replaced", None)
    assert await ledger.restore("t") == "t"


async def test_L8_a_plain_cancel_does_not_undo_a_success(client: Client, ledger: Custody) -> None:
    claim = await _claimed(client, ledger)
    await ledger.cancel(claim.job_id)
    row = await ledger.finish(claim, State.SUCCEEDED, result={"done": [0]})
    assert row is not None
    assert row["state"] == "succeeded"


async def test_a_worker_leaves_a_job_to_one_that_has_its_agent(client: Client, ledger: Custody) -> None:
    job = await client.enqueue("steps", {"done": [], "until": 1})
    await _register(ledger, "older", '{"research": {}}')
    assert await ledger.claim(job.job_id, "older") is None
    await ledger.database.rows(ledger.queries["unregister"], {"worker_id": "w"})
    assert isinstance(await ledger.claim(job.job_id, "older"), Claim), "with nobody to run it, it shall fail and say so"


def _step(position: str, step: int) -> bytes:
    return encode_event(Event(id=position, job_id="j", thread_id="t", type="updates", data={}, step=step))


async def test_P2_events_that_never_arrived_at_the_end_of_an_epoch_are_a_gap(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        events = EventLog(redis, Keys(), max_events=100, ttl_seconds=60)
        started = encode_event(Event(id="1-1", job_id="j", thread_id="t", type="started", data={}))
        await events.append("j", "t", 1, [(1, started), (2, _step("1-2", 1))])
        end = encode_event(Event(id="2-1", job_id="j", thread_id="t", type="succeeded", data={"result": 1}))
        await events.append("j", "t", 2, [(1, end)], log_top="1-5")
        seen = [event async for event in follow(redis, Keys(), "j")]
        assert [event.type for event in seen] == ["started", "updates", "gap", "succeeded"]
        assert seen[2].data == {"after": "1-2", "next": "2-1"}
        # All there: no gap.
        await redis.delete(Keys().events("j"))
        await events.append("j", "t", 1, [(1, started), (2, _step("1-2", 1))])
        await events.append("j", "t", 2, [(1, end)], log_top="1-2")
        assert [event.type async for event in follow(redis, Keys(), "j")] == ["started", "updates", "succeeded"]


async def test_P3_a_log_that_somebody_else_filled_does_not_fail_the_job(
    client: Client, workers: Any, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        job = await client.enqueue("steps", {"done": [], "until": 1})
        await redis.xadd(Keys().events(job.job_id), {"e": "no event"}, id="18446744073709551000-1")
        workers()
        assert await job.result(timeout=30) == {"done": [0], "until": 1}


@pytest.mark.parametrize("read", [loads, decode_event])
def test_deep_nesting_is_bad_input_and_no_crash(read: Any) -> None:
    with pytest.raises(ValueError, match="deep"):
        read(b'{"job_id":"j","thread_id":"t","type":"x","data":' + b"[" * 100_000)


async def test_L5_whoever_follows_a_refused_job_from_redis_alone_hears_of_it(
    client: Client, workers: Any, redis_url: str
) -> None:
    workers()
    await (await client.enqueue("steps", {"done": [], "until": 1}, thread_id="mine", user_id="me")).result(timeout=30)
    async with Client(redis_url=redis_url) as other:
        job = await other.enqueue("steps", {"done": [], "until": 1}, thread_id="mine", user_id="you")
        with pytest.raises(JobFailed, match="another user"):
            await job.result(timeout=30)


async def test_L2_one_key_is_one_job_also_through_redis_alone(client: Client, workers: Any, redis_url: str) -> None:
    async with Client(redis_url=redis_url) as other:
        first = await other.enqueue("steps", {"done": [], "until": 1}, idempotency_key="k")
        again = await other.enqueue("steps", {"done": [], "until": 1}, idempotency_key="k")
        different = await other.enqueue("steps", {"done": [], "until": 2}, idempotency_key="k")
        assert first.job_id == again.job_id == different.job_id
        workers()
        assert await first.result(timeout=30) == {"done": [0], "until": 1}
    assert len(await client.jobs()) == 1
