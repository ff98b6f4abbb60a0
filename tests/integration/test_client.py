"""The client keeps the contract: what it accepts is not lost, what it refuses it says, and passwords it never tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from support.ledger import Bench, bench_on, cloned, emptied
from threadline import (
    BackendUnavailable,
    Client,
    InvalidJob,
    Job,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    ResultTimeout,
    ThreadOwnedByAnother,
)
from threadline.contract import arq_message
from threadline.contract.events import encode_event
from threadline.contract.keys import Keys
from threadline.contract.states import State
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import EventLog
from threadline_worker.embedded import ServerUrls

KEYS = Keys()
NOBODY = "redis://127.0.0.1:1/0"
CALLS = ("status", "cancel", "result", "events")


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared)) as made:
        yield made


@pytest.fixture
async def client(bench: Bench, redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url=redis_url, database_url=bench.ledger.database.url) as made:
        yield made


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as made:
        yield made


async def announce(bench: Bench, redis: Redis, job_id: str) -> None:
    """Publish a job's latest transition, as its worker does."""
    row = await bench.row(job_id)
    log = EventLog(redis, KEYS, max_events=100, ttl_seconds=60)
    queued = encode_event(queued_event(job_id, row["thread_id"], row["agent"]))
    await log.append(job_id, row["thread_id"], row["epoch"], [(1, encode_event(event_of(row)))], queued=queued)


async def call(job: Job, name: str) -> Any:
    """One of a Job's calls, by name."""
    async with asyncio.timeout(20):
        if name == "events":
            return [event async for event in job.events()]
        return await getattr(job, name)()


# Enqueue


async def test_an_enqueued_job_is_in_ledger_queue_and_log(client: Client, bench: Bench, redis: Redis) -> None:
    job = await client.enqueue("steps", {"until": 1}, thread_id="t", user_id="me", metadata={"ticket": 7})
    status = await job.status()
    assert (status.job_id, status.thread_id, status.user_id, status.agent) == (job.job_id, "t", "me", "steps")
    assert (status.state, status.epoch, status.metadata, status.started_at) == ("queued", 0, {"ticket": 7}, None)
    assert status.created_at is not None
    assert status.created_at.tzinfo is not None
    assert await redis.zrange(KEYS.queue, 0, -1) == [f"{job.job_id}:0:1".encode()]
    body = await redis.get(f"arq:job:{job.job_id}:0:1")
    assert arq_message.decode(body) == [job.job_id]
    assert [entry_id for entry_id, _ in await redis.xrange(KEYS.events(job.job_id))] == [b"0-1"]


async def test_options_reach_the_ledger(client: Client, bench: Bench) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    job = await client.enqueue(
        "steps",
        "text",
        run_at=moment,
        expires=timedelta(hours=2),
        timeout=90,
        stream_modes=("updates", "messages"),
        interrupt_before=["a"],
        interrupt_after=("b",),
        checkpoint_id="c1",
    )
    row = await bench.row(job.job_id)
    assert (row["input"], row["run_at"], row["timeout_seconds"]) == ("text", moment, 90.0)
    assert timedelta(hours=1, minutes=59) < row["expires_at"] - row["created_at"] < timedelta(hours=2, minutes=1)
    assert row["options"] == {
        "stream_modes": ["updates", "messages"],
        "interrupt_before": ["a"],
        "interrupt_after": ["b"],
        "checkpoint_id": "c1",
    }
    assert row["dispatched_at"] is None  # not due


@pytest.mark.parametrize("thread_id", ["", "a b", "a" * 201, 5])
async def test_bad_input_leaves_nothing_anywhere(client: Client, bench: Bench, redis: Redis, thread_id: Any) -> None:
    with pytest.raises(InvalidJob, match="use 1-200 of letters, digits and"):
        await client.enqueue("steps", "a", thread_id=thread_id)
    assert await bench.sql("SELECT 1 FROM threadline.threads") == []
    assert await redis.dbsize() == 0


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"on_busy": "wait"}, "on_busy='wait': use enqueue, reject, interrupt or rollback"),
        ({"stream_modes": "updates"}, "stream_modes='updates': give a list of str"),
        ({"interrupt_before": "node"}, "interrupt_before='node': give a list of str"),
        ({"interrupt_after": None}, "interrupt_after=None: give a list of str"),
        ({"run_at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the case
        ({"timeout": timedelta(0)}, "timeout="),
        ({"expires": "soon"}, "expires='soon'"),
        ({"metadata": []}, "metadata is a list"),
        ({"user_id": ""}, "user id"),
        ({"input": "x" * 1_048_576}, "1 MiB"),
        ({"agent": "no such/agent"}, "agent 'no such/agent'"),
    ],
)
async def test_bad_options_are_named_before_any_server_is_asked(options: dict[str, Any], rule: str) -> None:
    async with Client(redis_url=NOBODY, database_url="postgresql://127.0.0.1:1/x") as client:
        with pytest.raises(InvalidJob, match=rule):
            await client.enqueue(**{"agent": "steps", "input": "a", **options})


async def test_a_job_enqueued_while_redis_is_away_is_accepted_and_dispatched_later(bench: Bench) -> None:
    async with Client(redis_url=NOBODY, database_url=bench.ledger.database.url) as client:
        job = await client.enqueue("steps", "a")
        row = await bench.row(job.job_id)
        assert (row["state"], row["dispatched_at"]) == ("queued", None)
        assert [due.job_id for due in await bench.ledger.dispatch_due()] == [job.job_id]
        assert (await job.cancel()).state == "cancelled"
        with pytest.raises(BackendUnavailable, match="Redis: Error 111"):
            await call(job, "events")


async def test_a_client_without_redis_leaves_dispatch_to_the_sweep(bench: Bench) -> None:
    async with Client(database_url=bench.ledger.database.url) as client:
        job = await client.enqueue("steps", "a")
        assert [due.job_id for due in await bench.ledger.dispatch_due()] == [job.job_id]
        with pytest.raises(BackendUnavailable, match="set REDIS_URL"):
            await call(job, "events")
        await bench.end(job.job_id, "succeeded")
        assert await job.result() is None


# Results


@pytest.mark.parametrize("announced", [True, False])
async def test_the_ledger_tells_the_result(client: Client, bench: Bench, redis: Redis, announced: bool) -> None:
    job = await client.enqueue("steps", "a")
    claim = await bench.claim(job.job_id)
    waiting = asyncio.create_task(job.result(timeout=20))
    while (await redis.pubsub_numsub(KEYS.events(job.job_id)))[0][1] == 0:
        await asyncio.sleep(0.002)
    await bench.ledger.finish(claim, State.SUCCEEDED, result={"report": "é" * 600_000})
    if announced:
        await announce(bench, redis, job.job_id)
    else:
        waiting.cancel()
        waiting = asyncio.create_task(job.result(timeout=20))  # asked after the end: the log is not looked at
    assert await waiting == {"report": "é" * 600_000}


async def test_every_end_is_told(client: Client, bench: Bench) -> None:
    jobs = {state: await client.enqueue("steps", "a") for state in ("failed", "cancelled", "interrupted", "succeeded")}
    for state, job in jobs.items():
        claim = await bench.claim(job.job_id)
        code = {"failed": "error", "cancelled": "replaced"}.get(state)
        message = "ValueError: no" if state == "failed" else None
        interrupts = [{"id": "i", "value": "ok?"}] if state == "interrupted" else None
        await bench.ledger.finish(claim, State(state), code=code, message=message, interrupts=interrupts)
    with pytest.raises(JobFailed, match="error: ValueError: no") as failed:
        await jobs["failed"].result()
    assert (failed.value.code, failed.value.message) == ("error", "ValueError: no")
    with pytest.raises(JobCancelled) as cancelled:
        await jobs["cancelled"].result()
    assert cancelled.value.code == "replaced"
    with pytest.raises(JobInterrupted) as interrupted:
        await jobs["interrupted"].result()
    assert interrupted.value.interrupts == [{"id": "i", "value": "ok?"}]
    assert await jobs["succeeded"].result() is None


async def test_a_result_that_takes_too_long_is_a_timeout_and_the_job_goes_on(client: Client) -> None:
    job = await client.enqueue("steps", "a")
    with pytest.raises(ResultTimeout, match=rf"job {job.job_id} has not ended within 0.05 s; it goes on"):
        await job.result(timeout=0.05)
    assert (await job.status()).state == "queued"
    with pytest.raises(InvalidJob, match="timeout=0"):
        await job.result(timeout=0)


# Cancel and retry


async def test_a_cancel_is_told_to_followers_without_any_worker(client: Client) -> None:
    job = await client.enqueue("steps", "a")
    async with asyncio.timeout(4):  # below the seconds after which a follower asks the ledger
        events = asyncio.create_task(call(job, "events"))
        await job.cancel()
        assert [(event.id, event.type) for event in await events] == [("0-1", "queued"), ("1-1", "cancelled")]
        with pytest.raises(JobCancelled, match="requested"):
            await job.result()
    assert (await job.cancel()).state == "cancelled"


async def test_a_running_job_is_asked_to_stop_on_the_control_channel(
    client: Client, bench: Bench, redis: Redis
) -> None:
    job = await client.enqueue("steps", "a")
    await bench.claim(job.job_id)
    async with redis.pubsub() as heard:
        await heard.subscribe(KEYS.control)
        await heard.get_message(timeout=5)
        assert (await job.cancel(rollback=True)).state == "running"
        assert (await heard.get_message(timeout=5))["data"] == f'{{"cancel":"{job.job_id}"}}'.encode()
    [request] = await bench.sql("SELECT job_id, code, rollback FROM threadline.cancel_requests")
    assert tuple(request.values()) == (job.job_id, "requested", True)


async def test_a_retry_is_told_to_followers_and_its_new_end_is_awaited(
    client: Client, bench: Bench, redis: Redis
) -> None:
    job = await client.enqueue("steps", "a")
    await bench.end(job.job_id, "failed")
    await announce(bench, redis, job.job_id)
    again = await client.retry(job.job_id)
    assert again.job_id == job.job_id
    waiting = asyncio.create_task(again.result(timeout=20))
    while (await redis.pubsub_numsub(KEYS.events(job.job_id)))[0][1] == 0:
        await asyncio.sleep(0.002)
    await bench.end(job.job_id, "succeeded")
    await announce(bench, redis, job.job_id)
    assert await waiting is None
    assert [event.type for event in await call(again, "events")] == ["queued", "failed", "retried", "succeeded"]


# Who asks


async def test_every_call_is_checked_as_its_user(client: Client, bench: Bench, redis: Redis) -> None:
    mine = await client.enqueue("steps", "a", user_id="me")
    yours = Job(client, mine.job_id, mine.thread_id, "you")
    for name in CALLS:
        with pytest.raises(ThreadOwnedByAnother, match=f"job {mine.job_id} belongs to another user"):
            await call(yours, name)
    for ask in (client.retry, client.job):
        with pytest.raises(ThreadOwnedByAnother):
            await ask(mine.job_id, user_id="you")
    assert (await mine.status()).state == "queued"
    trusted = await client.job(mine.job_id)
    assert (await trusted.cancel()).state == "cancelled"


async def test_an_unknown_job_is_said_to_be_unknown(client: Client) -> None:
    nobody = Job(client, "nobody", "t", None)
    for name in CALLS:
        with pytest.raises(JobNotFound, match="no job nobody is known"):
            await call(nobody, name)
    for ask in (client.retry, client.job):
        with pytest.raises(JobNotFound):
            await ask("nobody")
        with pytest.raises(InvalidJob, match="job id 'a b': use 1-200"):
            await ask("a b")


@pytest.mark.parametrize("after", ["", "x", "1", "1-x", f"{2**64}-1"])
async def test_a_position_that_is_none_is_refused(client: Client, after: str) -> None:
    job = await client.enqueue("steps", "a")
    with pytest.raises(InvalidJob, match="after="):
        async for _ in job.events(after=after):
            pass


async def test_jobs_are_listed_newest_first_and_filtered(client: Client, bench: Bench) -> None:
    first = await client.enqueue("steps", "a", thread_id="t", user_id="me")
    second = await client.enqueue("steps", "a", thread_id="t", user_id="me")
    other = await client.enqueue("steps", "a", user_id="you")
    await bench.claim(first.job_id)

    async def listed(**filters: Any) -> list[str]:
        return [status.job_id for status in await client.jobs(**filters)]

    assert await listed() == [other.job_id, second.job_id, first.job_id]
    assert await listed(thread_id="t") == [second.job_id, first.job_id]
    assert await listed(state="running") == [first.job_id]
    assert await listed(state="queued", user_id="me") == [second.job_id]
    assert await listed(limit=1) == [other.job_id]
    assert await listed(user_id="nobody") == []
    refused: list[dict[str, Any]] = [{"state": "lost"}, {"thread_id": "a b"}, {"thread_id": "\0"}, {"user_id": "\0"}]
    for filters in refused:
        with pytest.raises(InvalidJob):
            await listed(**filters)
