"""The faults of a chaos run that are jobs or messages, and what they share with the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.chaos_invariants import Away
from support.chaos_load import Accepted, Load
from support.chaos_orders import Orders
from support.chaos_processes import Fleet, Slot
from support.chaos_schedule import Fault
from support.servers import ServerControl
from threadline.contract.keys import Keys

__all__ = ["MOMENT_SECONDS", "JobFaults"]

#: How long a fault waits for the moment that it needs; then it was in vain, and says so.
MOMENT_SECONDS = 5.0
_HUGE_BYTES = 50_000_000


class JobFaults:
    """The half of `support.chaos_faults.Faults` that needs no hand on processes, networks and servers (but to kill)."""

    def __init__(self, control: ServerControl, fleet: Fleet, load: Load, orders: Orders, rng: random.Random) -> None:
        self._control = control
        self._fleet = fleet
        self._load = load
        self._orders = orders
        self._rng = rng
        self._poisoned: set[str] = set()
        #: Workers that were killed or stopped, or cut off from everything.
        self.away: list[Away] = []
        #: The ids of messages that can never become jobs.
        self.hostile: list[str] = []

    async def _poison(self, _fault: Fault) -> bool:
        """A job whose every attempt kills its worker without progress."""
        return await self._poisonous("kill")

    async def _memory_bomb(self, _fault: Fault) -> bool:
        """A job that eats all that its process may have; what becomes of its neighbours is the question."""
        return await self._poisonous("memory")

    async def _poisonous(self, how: str) -> bool:
        """One of each in a run is enough: each costs three workers."""
        if how in self._poisoned:
            return False
        self._poisoned.add(how)
        return await self._load.enqueue(f"poisonous-{how}", rounds=1, poison=how) is not None

    async def _claim_answer_lost(self, _fault: Fault) -> bool:
        """The claim is committed, and the worker does not know."""
        before = sum(slot.postgres.answers_lost for slot in self._fleet.slots)
        accepted = await self._load.enqueue(f"lost-{self._rng.randrange(10**6)}", rounds=1, delay=0.5)
        assert accepted is not None
        for slot in self._fleet.slots:
            # The first request of a worker that names the job is its claim.
            slot.postgres.lose_answer(accepted.job.job_id.encode())
        await asyncio.sleep(1.5)
        for slot in self._fleet.slots:
            slot.postgres.forget_answer()
        return sum(slot.postgres.answers_lost for slot in self._fleet.slots) > before

    async def _two_jobs_one_thread(self, _fault: Fault) -> bool:
        """At the same moment; the worker that has the first dies in it."""
        thread = f"pair-{self._rng.randrange(10**6)}"
        first, _second = await asyncio.gather(
            self._load.enqueue(thread, rounds=2), self._load.enqueue(thread, rounds=2)
        )
        assert first is not None
        return await self._kill_the_worker_of(first)

    async def _cancel_then_death(self, fault: Fault) -> bool:
        accepted = await self._load.enqueue(f"doomed-{self._rng.randrange(10**6)}", rounds=3)
        assert accepted is not None
        slot = await self._worker_of(accepted)
        if slot is None:
            return False
        await self._load.cancel(accepted, rollback=fault.worker % 2 == 0)
        self._kill_now(slot)
        return True

    async def _retry_race(self, _fault: Fault) -> bool:
        """Cancelled, then retried from three sides while a later job of the thread comes up."""
        thread = f"again-{self._rng.randrange(10**6)}"
        accepted = await self._load.enqueue(thread, rounds=3)
        assert accepted is not None
        await self._worker_of(accepted)
        await self._load.cancel(accepted)
        end = time.monotonic() + MOMENT_SECONDS
        while time.monotonic() < end and not accepted.told_all:
            await asyncio.sleep(0.02)
        later = self._load.enqueue(thread, rounds=1)
        retries = [self._load.retry(accepted) for _ in range(3)]
        answers = await asyncio.gather(*retries, later)
        return any(answers[:3])

    async def _equal_enqueues(self, _fault: Fault) -> None:
        await self._load.equal_enqueues(f"equal-{self._rng.randrange(10**6)}", 100)

    async def _hostile_messages(self, _fault: Fault | None) -> None:
        """Pickle, something huge, wrong types, bad UTF-8, a stranger's thread."""
        keys = Keys()

        async def send(redis: Any) -> None:
            bodies = {
                "pickle": pickle.dumps({"t": 1, "f": "run_job", "a": ("x",), "k": {}, "et": 1}),
                "huge": json.dumps({"f": "run_job", "a": ["x" * _HUGE_BYTES], "k": {}, "t": 1, "et": 1}).encode(),
                "wrong": json.dumps({"f": 1, "a": 2, "k": 3, "t": "x", "et": []}).encode(),
                "none": b"",
            }
            for name, body in bodies.items():
                message = f"hostile-{name}-{self._rng.randrange(10**6)}"
                await redis.psetex(f"arq:job:{message}", 60_000, body)
                await redis.zadd(keys.queue, {message: 1})
                self.hostile.append(message)
            await redis.lpush("arq:job:hostile-list", "x")
            await redis.expire("arq:job:hostile-list", 60)
            await redis.zadd(keys.queue, {"hostile-list": 1, b"hostile-\xff\xfe": 1})
            self.hostile += ["hostile-list", b"hostile-\xff\xfe".decode("utf-8", "replace")]

        await self._tell_redis(send)
        if self._load.accepted:
            thread = self._rng.choice([a.job.thread_id for a in self._load.accepted.values() if not a.carried])
            self.hostile += await self._load.foreign(thread)

    # What they share.

    def _kill_now(self, slot: Slot) -> None:
        if slot.pid:
            self.away.append(Away(slot.pid, time.time(), float("inf")))
        slot.signal(signal.SIGKILL)

    @asynccontextmanager
    async def _away(self, slot: Slot) -> AsyncIterator[None]:
        pid, since = slot.pid, time.time()
        try:
            yield
        finally:
            self.away.append(Away(pid, since, time.time()))

    async def _taken(self, slot: Slot, order: str, argument: str) -> bool:
        """Give an order and wait until the worker has taken it; False: it did not come to that point."""
        self._orders.give(slot.name, order, argument)
        end = time.monotonic() + MOMENT_SECONDS
        while time.monotonic() < end and self._orders.waits(slot.name, order):
            await asyncio.sleep(0.02)
        return not self._orders.withdraw(slot.name, order)

    async def _worker_of(self, accepted: Accepted) -> Slot | None:
        end = time.monotonic() + MOMENT_SECONDS
        while time.monotonic() < end:
            query = "SELECT worker_id FROM threadline.jobs WHERE job_id = %s AND state = 'running'"
            rows = await self._ask(query, accepted.job.job_id)
            if rows and (slot := self._fleet.of_worker(rows[0][0])) is not None:
                return slot
            await asyncio.sleep(0.02)
        return None

    async def _kill_the_worker_of(self, accepted: Accepted) -> bool:
        slot = await self._worker_of(accepted)
        if slot is not None:
            self._kill_now(slot)
        return slot is not None

    async def _ask(self, query: str, *params: Any) -> list[Any]:
        with contextlib.suppress(psycopg.OperationalError, TimeoutError):
            async with asyncio.timeout(3):
                url = self._control.urls.database_url
                async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=2) as connection:
                    return list(await (await connection.execute(query.encode(), params)).fetchall())
        return []

    async def _tell_redis(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        """Redis may be away because of another fault; then this one is in vain."""
        with contextlib.suppress(RedisError, OSError):
            async with self._redis() as redis:
                await call(redis)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Redis]:
        async with Redis.from_url(self._control.urls.redis_url, socket_timeout=5) as redis:
            yield redis
