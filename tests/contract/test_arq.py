"""contract.arq_message is what the real arq reads and writes, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import arq.constants
import pytest
from arq.connections import ArqRedis
from arq.jobs import deserialize_job
from arq.worker import Worker, func
from redis.asyncio import Redis

from threadline import dispatch
from threadline.contract import arq_message
from threadline.contract.codec import dumps, loads
from threadline.contract.keys import Keys

KEYS = Keys()
JOB = {"v": 1, "job_id": "j1", "agent": "research", "input": "Größe?", "thread_id": "t1"}


@pytest.fixture
async def arq_redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    redis = ArqRedis.from_url(redis_url)
    redis.job_serializer, redis.job_deserializer, redis.default_queue_name = dumps, loads, KEYS.queue
    yield redis
    await redis.aclose()


async def taken(redis: ArqRedis, count: int) -> list[tuple[str, tuple[Any, ...]]]:
    """What a stock arq worker hands to `run_job`: message ids and arguments."""
    got: list[tuple[str, tuple[Any, ...]]] = []
    enough = asyncio.Event()

    async def run_job(ctx: dict[str, Any], *args: Any) -> None:
        got.append((ctx["job_id"], args))
        if len(got) == count:
            enough.set()

    worker = Worker(
        [func(run_job, name=arq_message.FUNCTION, keep_result=0)],
        queue_name=KEYS.queue,
        redis_pool=redis,
        burst=True,
        handle_signals=False,
        poll_delay=0.01,
        job_serializer=dumps,
        job_deserializer=loads,
    )
    running = asyncio.create_task(worker.async_run())
    try:
        async with asyncio.timeout(10):
            await enough.wait()
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        redis.connection_pool.connection_kwargs.pop("client_name", None)
    assert worker.jobs_failed == 0
    return got


def test_the_names_are_arqs() -> None:
    assert arq.constants.job_key_prefix == arq_message.JOB_KEY_PREFIX
    assert arq.constants.retry_key_prefix == arq_message.RETRY_KEY_PREFIX
    assert arq.constants.in_progress_key_prefix == arq_message.IN_PROGRESS_KEY_PREFIX
    assert arq.constants.result_key_prefix == arq_message.RESULT_KEY_PREFIX
    assert arq.constants.expires_extra_ms == arq_message.DISPATCH_TTL_MS


def test_arqs_deserialiser_reads_our_body() -> None:
    body = arq_message.Message("m1", ["j1", JOB], 1_795_161_600_000).body
    read = deserialize_job(body, deserializer=loads)
    assert (read.function, list(read.args), read.kwargs) == ("run_job", ["j1", JOB], {})
    assert not read.job_try
    assert read.enqueue_time.timestamp() == 1_795_161_600.0


async def test_a_real_arq_worker_takes_what_we_dispatch(arq_redis: ArqRedis, redis_url: str) -> None:
    messages = [
        arq_message.Message(arq_message.message_id("j0", 0, 1), ["j0"], 1),
        arq_message.Message("j1", ["j1", JOB], 2),
    ]
    async with Redis.from_url(redis_url) as redis:
        await dispatch.send(redis, KEYS, messages)
        assert sorted(await taken(arq_redis, 2)) == [("j0:0:1", ("j0",)), ("j1", ("j1", JOB))]
        assert [key async for key in redis.scan_iter("arq:job:*")] == []
        assert await redis.zcard(KEYS.queue) == 0


async def test_we_read_what_arqs_own_enqueue_writes(arq_redis: ArqRedis) -> None:
    job = await arq_redis.enqueue_job(arq_message.FUNCTION, "j1", JOB)
    assert job is not None
    body = await arq_redis.get(arq_message.JOB_KEY_PREFIX + job.job_id)
    assert arq_message.decode(body) == ["j1", JOB]
    assert await arq_redis.zrange(KEYS.queue, 0, -1) == [job.job_id.encode()]


async def test_a_dispatch_wakes_workers_and_expires(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as heard:
        await heard.subscribe(KEYS.wake)
        assert (await heard.get_message(timeout=5))["type"] == "subscribe"
        await dispatch.send(redis, KEYS, [arq_message.Message("m", ["j"], 1)])
        assert (await heard.get_message(timeout=5))["type"] == "message"
        assert 0 < await redis.pttl("arq:job:m") <= arq_message.DISPATCH_TTL_MS


async def test_nothing_is_sent_for_nothing(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await dispatch.send(redis, KEYS, [])
        assert await redis.dbsize() == 0
