"""A worker's slots and several queues: each has its part, whatever waits in the others; one that fails is alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from arq.connections import ArqRedis

from support.gates import until
from threadline import dispatch
from threadline.contract.arq_message import Message
from threadline.contract.keys import Keys
from threadline.redis_client import connect_redis
from threadline_worker.consumer import Consumer
from threadline_worker.runs import Run, Runs

KEYS = Keys()


class Desk:
    """A consumer whose handler keeps a slot for each message until the test frees it."""

    def __init__(self, redis: Any, slots: int, queues: tuple[str, ...]) -> None:
        self.redis = redis
        self.runs = Runs(slots)
        self.taken: list[str] = []
        self._begun: dict[str, Run] = {}
        self.consumer = Consumer(
            redis,
            KEYS,
            self.runs,
            queues=queues,
            handler=self._handle,
            dead_letter=self._dead_letter,
            may_claim=lambda: True,
            on_control=lambda _command: None,
            on_purged=lambda _why: None,
        )

    async def put(self, queue: str, *jobs: str) -> None:
        """One by one, so that each has a due time of its own and the queue an order."""
        for job in jobs:
            await dispatch.send(self.redis, KEYS, [Message(job, [job], int(time.time() * 1000))], queue=queue)

    def end(self, job: str) -> None:
        self.runs.remove(self._begun[job])

    async def _handle(self, _message_id: str, job_id: str, _job: Any) -> None:
        """As the worker's own: a claim takes a moment, then there is a run."""
        await asyncio.sleep(0.01)
        with self.runs.reserve(job_id):
            await asyncio.sleep(0.01)
            self._begun[job_id] = Run(SimpleNamespace(job_id=job_id, row={"stalls": 0}))  # type: ignore[arg-type]  # of a claim only the id is read
            self.runs.add(self._begun[job_id])
            self.taken.append(job_id)

    async def _dead_letter(self, message_id: str, why: str, body: bytes | None) -> None:
        """Nobody reads them here."""


@contextlib.asynccontextmanager
async def desk_on(redis_url: str, slots: int, *queues: str, before: dict[str, list[str]]) -> AsyncIterator[Desk]:
    async with connect_redis(redis_url, kind=ArqRedis) as redis:
        desk = Desk(redis, slots, queues)
        for queue, jobs in before.items():
            await desk.put(queue, *jobs)
        running = asyncio.create_task(desk.consumer.run())
        try:
            yield desk
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def taken(desk: Desk, count: int) -> list[str]:
    return await until(lambda: list(desk.taken) if len(desk.taken) >= count else None, f"{count} are taken")


async def test_with_one_slot_the_queues_take_turns(redis_url: str) -> None:
    backlog = [f"a{number}" for number in range(20)]
    async with desk_on(redis_url, 1, "default", "b", "c", before={"default": backlog, "b": ["b0", "b1"]}) as desk:
        for turn in range(6):
            order = await taken(desk, turn + 1)
            assert len(order) == turn + 1  # never two at once
            desk.end(order[turn])
        assert (await taken(desk, 6))[:6] == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_free_slots_are_parted_and_what_one_queue_leaves_is_the_others(redis_url: str) -> None:
    before = {
        "default": [f"a{number}" for number in range(30)],
        "b": [f"b{number}" for number in range(30)],
        "c": ["c0"],
    }
    async with desk_on(redis_url, 9, "default", "b", "c", before=before) as desk:
        order = await taken(desk, 9)
        counts = {name: sum(job[0] == name for job in order) for name in "abc"}
        assert counts == {"a": 4, "b": 4, "c": 1}
        assert len(desk.taken) == 9


async def test_a_wake_up_of_a_named_queue_is_heard(redis_url: str) -> None:
    async with desk_on(redis_url, 2, "default", "deep", before={"deep": ["first"]}) as desk:
        await taken(desk, 1)
        # Subscribed by now, or else at the next look; of ten rounds none waits for the half second of the slow look.
        began = time.monotonic()
        for number in range(10):
            await desk.put("deep", f"d{number}")
            await taken(desk, number + 2)
            desk.end(f"d{number}")
        assert time.monotonic() - began < 10 * 0.25


async def test_a_queue_that_cannot_be_read_keeps_none_of_the_others(redis_url: str) -> None:
    async with desk_on(redis_url, 2, "broken", "default", before={}) as desk:
        await desk.redis.set(KEYS.queue_of("broken"), "no sorted set")
        await desk.put("default", "a0")
        assert await taken(desk, 1) == ["a0"]
        await desk.redis.delete(KEYS.queue_of("broken"))
        await desk.put("broken", "b0")
        assert await taken(desk, 2) == ["a0", "b0"]


async def test_messages_in_other_hands_hide_nothing_behind_them(redis_url: str) -> None:
    backlog = [f"a{number}" for number in range(90)]
    async with connect_redis(redis_url, kind=ArqRedis) as redis:
        for job in backlog:
            await redis.psetex(f"arq:in-progress:{job}", 60_000, b"1")
    async with desk_on(redis_url, 1, "default", "deep", before={"default": [*backlog, "z"], "deep": ["d"]}) as desk:
        order = await taken(desk, 1)
        desk.end(order[0])
        assert set(await taken(desk, 2)) == {"z", "d"}
