"""What others have begun costs a worker one question for all of it, and it begins with no more than it has room for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.connections import ArqRedis

from threadline import dispatch
from threadline.contract import arq_message
from threadline.contract.keys import Keys
from threadline.redis_client import connect_redis
from threadline_worker.tap import Tap

KEYS = Keys()
TAKEN = 150


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    made: Any = connect_redis(redis_url, kind=ArqRedis)
    names = [f"job-{number:03}:0:1" for number in range(300)]
    await dispatch.send(made, KEYS, [arq_message.Message(name, [name.partition(":")[0]], 0) for name in names])
    for name in names[:TAKEN]:
        await made.psetex(arq_message.IN_PROGRESS_KEY_PREFIX + name, 60_000, b"1")
    yield made
    await made.aclose()


def tap_on(redis: ArqRedis, begun: list[str], leave: asyncio.Event) -> Tap:
    async def handler(ctx: dict[str, Any], *_args: Any) -> None:
        begun.append(ctx["job_id"])
        await leave.wait()

    async def never(*_args: Any) -> None:
        raise AssertionError

    return Tap(
        redis,
        KEYS,
        "default",
        slots=sys.maxsize,
        handler=handler,
        dead_letter=never,
        on_gone=never,
        note_purged=lambda *_: None,
        on_done=lambda: None,
    )


async def tries(redis: ArqRedis) -> int:
    return int((await redis.info("commandstats")).get("cmdstat_watch", {"calls": 0})["calls"])


async def test_what_others_have_begun_is_passed_over_at_once(redis: ArqRedis) -> None:
    begun: list[str] = []
    leave = asyncio.Event()
    tap = tap_on(redis, begun, leave)
    before = await tries(redis)
    assert await tap.take(30) == 30  # behind all that others have, farther than it reads at first
    leave.set()
    while tap.arriving:
        await asyncio.sleep(0)
    assert await tries(redis) - before == 30
    assert len(set(begun)) == 30
    assert min(begun) >= f"job-{TAKEN}"
    await tap.close()


async def test_what_is_slow_to_be_claimed_is_not_begun_again_by_the_same_worker(redis: ArqRedis) -> None:
    """Else a few slow ones would use up all that arq lets begin, and the worker's other queues would wait for them."""
    begun: list[str] = []
    leave = asyncio.Event()
    tap = tap_on(redis, begun, leave)
    assert await tap.take(3) == 3
    for number in (3, 6):
        while len(begun) < number:
            await asyncio.sleep(0)
        await redis.delete(*(arq_message.IN_PROGRESS_KEY_PREFIX + name for name in begun))  # five seconds later
        assert await tap.take(3) == 3
    leave.set()
    await tap.close()
    assert len(begun) == len(set(begun)) == 9


async def test_of_two_that_read_the_same_head_each_begins_with_others(redis: ArqRedis) -> None:
    leave = asyncio.Event()
    leave.set()
    begun: list[list[str]] = [[], []]
    taps = [tap_on(redis, one, leave) for one in begun]
    for _ in range(40):
        taken = await asyncio.gather(*(tap.take(10) for tap in taps))
        assert max(taken) <= 10
        # What was begun ends before the next look, as a claim does.
        while any(tap.arriving for tap in taps):
            await asyncio.sleep(0)
    both = begun[0] + begun[1]
    assert len(both) == len(set(both)) == 300 - TAKEN
    for tap in taps:
        await tap.close()
