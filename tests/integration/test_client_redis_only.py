"""A client with Redis alone enqueues, follows and awaits results; what needs the ledger says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from threadline import (
    BackendUnavailable,
    Client,
    InvalidJob,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    NeedsDatabase,
)
from threadline.contract import arq_message
from threadline.contract.events import Event, encode_event
from threadline.contract.job import decode_request
from threadline.contract.keys import Keys
from threadline.contract.signature import verify
from threadline.log.append import EventLog
from threadline.settings import ClientSettings

KEYS = Keys()
NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
async def redis_only(redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url=redis_url) as made:
        yield made


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as made:
        yield made


async def the_message(redis: Redis) -> tuple[str, bytes]:
    """The queue's only message: its id and its body."""
    [message] = await redis.zrange(KEYS.queue, 0, -1)
    return message.decode(), await redis.get(b"arq:job:" + message)


async def test_redis_alone_carries_the_whole_job(redis_only: Client, redis: Redis) -> None:
    job = await redis_only.enqueue("steps", {"until": 1}, thread_id="t", user_id="me")
    message, body = await the_message(redis)
    job_id, carried = arq_message.decode(body)
    request = decode_request(carried)
    assert (job_id, request.job_id, request.input, request.user_id) == (job.job_id, job.job_id, {"until": 1}, "me")
    assert await redis.pttl(f"arq:job:{message}") > arq_message.DISPATCH_TTL_MS


async def test_redis_alone_names_a_job_by_its_key(redis_only: Client, redis: Redis) -> None:
    first, again = [await redis_only.enqueue("steps", "a", idempotency_key="k") for _ in range(2)]
    assert (again.job_id, again.thread_id) == (first.job_id, first.thread_id)
    await the_message(redis)
    other = await redis_only.enqueue("steps", "a", idempotency_key="k", user_id="you")
    assert other.job_id != first.job_id


async def test_redis_alone_signs_what_it_carries(redis_url: str, redis: Redis) -> None:
    keys = {"k1": b"k" * 32}
    settings = ClientSettings(redis_url=redis_url, enqueue_keys=keys)
    async with Client(settings=settings) as client:
        await client.enqueue("steps", {2: "a", 10: "b"}, thread_id="t")  # type: ignore[dict-item]  # JSON makes keys text
    _, carried = arq_message.decode((await the_message(redis))[1])
    verify(carried, keys)
    with pytest.raises(InvalidJob, match="signature"):
        verify({**carried, "user_id": "root"}, keys)


async def test_redis_alone_needs_a_database_for_everything_else(redis_only: Client) -> None:
    job = await redis_only.enqueue("steps", "a")
    calls: list[Callable[[], Awaitable[Any]]] = [
        job.status,
        job.cancel,
        redis_only.jobs,
        lambda: redis_only.retry(job.job_id),
        lambda: redis_only.enqueue("steps", "a", connection=object()),  # type: ignore[arg-type]  # never looked at
    ]
    for ask in calls:
        with pytest.raises(NeedsDatabase, match="database_url"):
            await ask()
    assert (await redis_only.job(job.job_id)).job_id == job.job_id


END: list[tuple[dict[str, Any], type[Exception] | None]] = [
    ({"type": "succeeded", "data": {"result": {"a": 1}}}, None),
    ({"type": "failed", "data": {"code": "timeout", "message": "m"}}, JobFailed),
    ({"type": "cancelled", "data": {"code": "replaced"}}, JobCancelled),
    ({"type": "interrupted", "data": {"interrupts": [{"id": "i", "value": 1}]}}, JobInterrupted),
    ({"type": "succeeded", "data": {"result": "x" * 1_100_000}}, NeedsDatabase),
]


@pytest.mark.parametrize(("end", "error"), END, ids=["succeeded", "failed", "cancelled", "interrupted", "too big"])
async def test_redis_alone_awaits_results_by_the_log(
    redis_only: Client, redis: Redis, end: dict[str, Any], error: type[Exception] | None
) -> None:
    job = await redis_only.enqueue("steps", "a")
    event = Event(job_id=job.job_id, thread_id=job.thread_id, id="1-1", **end)
    log = EventLog(redis, KEYS, max_events=100, ttl_seconds=60)
    await log.append(job.job_id, job.thread_id, 1, [(1, encode_event(event))])
    if error is None:
        assert await job.result(timeout=10) == end["data"]["result"]
    else:
        with pytest.raises(error):
            await job.result(timeout=10)


async def test_redis_alone_lets_nobody_act_as_a_user(redis_only: Client) -> None:
    job = await redis_only.enqueue("steps", "a", user_id="me")
    with pytest.raises(NeedsDatabase, match="user_id= reads the ledger"):
        await redis_only.job(job.job_id, user_id="you")
    with pytest.raises(NeedsDatabase, match="user_id= reads the ledger"):
        await anext(redis_only.thread_events(job.thread_id, user_id="you"))


async def test_redis_alone_says_when_redis_is_away() -> None:
    async with Client(redis_url=NOBODY) as client:
        with pytest.raises(BackendUnavailable, match=r"Redis: .* the job was not accepted for certain; repeat it"):
            await client.enqueue("steps", "a")
