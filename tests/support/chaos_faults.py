"""The faults of `support.chaos_schedule`, each as a call that does it, waits as long as it lasts and takes it back."""

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

from support.chaos_load import Accepted, Load
from support.chaos_orders import Orders
from support.chaos_processes import Fleet, Slot
from support.chaos_schedule import Fault
from support.servers import ServerControl
from threadline.contract.keys import Keys

__all__ = ["Faults"]

#: How long a fault waits for the moment that it needs; then it was in vain, and says so.
_MOMENT_SECONDS = 5.0
_HUGE_BYTES = 50_000_000


class Faults:
    """`await inject(fault)`; `heal()` at the end, when all have been awaited or cancelled."""

    def __init__(self, control: ServerControl, fleet: Fleet, load: Load, orders: Orders, rng: random.Random) -> None:
        self._control = control
        self._fleet = fleet
        self._load = load
        self._orders = orders
        self._rng = rng
        self._server_lock = asyncio.Lock()
        #: (kind, begin, end) of what has happened, by the monotonic clock; `end` is when it was taken back.
        self.done: list[tuple[Fault, float, float]] = []
        self.in_vain: list[Fault] = []
        self.poisons = 0
        #: pid → when it was killed.
        self.killed: dict[int, float] = {}

    async def inject(self, fault: Fault) -> None:
        """Do it, wait for its end, take it back."""
        act: Callable[[Fault], Awaitable[bool | None]] = getattr(self, f"_{fault.kind}")
        begin = time.time()
        if await act(fault) is False:
            self.in_vain.append(fault)
        self.done.append((fault, begin, time.time()))

    async def heal(self) -> None:
        """Whatever may still be wrong is put right."""
        self._orders.withdraw_all()
        for slot in self._fleet.slots:
            slot.thaw()
            for proxy in (slot.redis, slot.postgres):
                proxy.forget_answer()
                await proxy.set("pass")
        await asyncio.to_thread(self._control.thaw_redis)
        if not self._control.valkey.running:
            await asyncio.to_thread(self._control.restart_redis)
        if not self._control.postgres.running:
            await asyncio.to_thread(self._control.restart_postgres)
        async with self._redis() as redis:
            await redis.config_set("maxmemory", 0)

    # Workers.

    async def _kill(self, fault: Fault) -> None:
        await self._busy_moment(fault)
        self._kill_now(self._slot(fault))

    async def _terminate(self, fault: Fault) -> None:
        self._slot(fault).signal(signal.SIGTERM)

    async def _freeze(self, fault: Fault) -> None:
        await self._busy_moment(fault)
        slot = self._slot(fault)
        slot.freeze()
        await asyncio.sleep(fault.seconds)
        slot.thaw()

    async def _stop_mid_write(self, fault: Fault) -> bool:
        """The worker's backend hangs with the write done and nothing committed, until the worker is let go on."""
        slot = self._slot(fault)
        if not await self._taken(slot, "stop@fence.before", ""):
            return False
        await asyncio.sleep(fault.seconds)
        slot.thaw()
        return True

    async def _crash_at(self, fault: Fault) -> bool:
        return await self._taken(self._slot(fault), f"exit@{fault.detail}", "")

    async def _block_loop(self, fault: Fault) -> bool:
        return await self._taken(self._slot(fault), "block", f"{fault.seconds}")

    async def _clock(self, fault: Fault) -> None:
        slot = self._slot(fault)
        self._orders.give(slot.name, "clock", fault.detail)
        await asyncio.sleep(fault.seconds)
        self._orders.withdraw(slot.name, "clock")

    # Networks.

    async def _partition(self, fault: Fault) -> None:
        slot = self._slot(fault)
        async with self._proxies("blackhole", slot.redis, slot.postgres):
            await asyncio.sleep(fault.seconds)

    async def _reset_connections(self, fault: Fault) -> None:
        slot = self._slot(fault)
        await slot.redis.reset()
        await slot.postgres.reset()

    async def _slow_postgres(self, fault: Fault) -> None:
        async with self._proxies("latency:0.05", self._slot(fault).postgres):
            await asyncio.sleep(fault.seconds)

    async def _mute_postgres(self, fault: Fault) -> None:
        async with self._proxies("mute", self._slot(fault).postgres):
            await asyncio.sleep(fault.seconds)

    async def _refuse_redis(self, fault: Fault) -> None:
        async with self._proxies("refuse", self._slot(fault).redis):
            await asyncio.sleep(fault.seconds)

    async def _redis_blackhole_one(self, fault: Fault) -> None:
        async with self._proxies("blackhole", self._slot(fault).redis):
            await asyncio.sleep(fault.seconds)

    async def _redis_blackhole_all(self, fault: Fault) -> None:
        async with self._proxies("blackhole", *(slot.redis for slot in self._fleet.slots)):
            await asyncio.sleep(fault.seconds)

    async def _postgres_blackhole_one(self, fault: Fault) -> None:
        async with self._proxies("blackhole", self._slot(fault).postgres):
            await asyncio.sleep(fault.seconds)

    async def _postgres_outage(self, fault: Fault) -> None:
        """Longer than the lease, for all workers at once."""
        async with self._proxies("blackhole", *(slot.postgres for slot in self._fleet.slots)):
            await asyncio.sleep(fault.seconds)

    async def _postgres_lost_answer(self, fault: Fault) -> bool:
        """A statement, and its commit, has happened; nobody is told."""
        proxy = self._slot(fault).postgres
        before = proxy.answers_lost
        proxy.lose_answer()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT_SECONDS):
                while proxy.answers_lost == before:
                    await asyncio.sleep(0.02)
        proxy.forget_answer()
        return proxy.answers_lost > before

    # Servers.

    async def _redis_restart_empty(self, fault: Fault) -> None:
        async with self._server_lock:
            await asyncio.to_thread(self._control.kill_redis)
            await asyncio.sleep(fault.seconds / 2)
            await asyncio.to_thread(self._control.restart_redis)

    async def _redis_flushall(self, _fault: Fault) -> None:
        await self._tell_redis(lambda redis: redis.flushall())

    async def _redis_pubsub_kill(self, _fault: Fault) -> None:
        for _ in range(10):
            await self._tell_redis(lambda redis: redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
            await asyncio.sleep(0.1)

    async def _redis_full(self, fault: Fault) -> None:
        await self._tell_redis(lambda redis: redis.config_set("maxmemory", 1))
        await asyncio.sleep(fault.seconds)
        await self._tell_redis(lambda redis: redis.config_set("maxmemory", 0))

    async def _postgres_restart(self, _fault: Fault) -> None:
        async with self._server_lock:
            await asyncio.to_thread(self._control.stop_postgres, "immediate")
            await asyncio.to_thread(self._control.restart_postgres)

    async def _postgres_exhausted(self, fault: Fault) -> None:
        """As many connections as there are; those of workers that end meanwhile are taken, too."""
        held: list[AsyncConnection[Any]] = []
        end = time.monotonic() + fault.seconds
        try:
            while time.monotonic() < end:
                try:
                    held.append(await AsyncConnection.connect(self._control.urls.database_url, connect_timeout=5))
                except psycopg.OperationalError:
                    await asyncio.sleep(0.2)
        finally:
            for connection in held:
                connection.pgconn.finish()

    # Jobs.

    async def _poison(self, _fault: Fault) -> None:
        """A job whose every attempt kills its worker without progress. One in a run is enough: each costs three."""
        self.poisons += 1
        if self.poisons == 1:
            await self._load.enqueue("poisonous", rounds=1, poison=True)

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
        end = time.monotonic() + _MOMENT_SECONDS
        while time.monotonic() < end and not accepted.told_all:
            await asyncio.sleep(0.02)
        later = self._load.enqueue(thread, rounds=1)
        retries = [self._load.retry(accepted) for _ in range(3)]
        answers = await asyncio.gather(*retries, later)
        return any(answers[:3])

    async def _equal_enqueues(self, _fault: Fault) -> None:
        await self._load.equal_enqueues(f"equal-{self._rng.randrange(10**6)}", 100)

    async def _hostile_messages(self, _fault: Fault) -> None:
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
            await redis.lpush("arq:job:hostile-list", "x")
            await redis.expire("arq:job:hostile-list", 60)
            await redis.zadd(keys.queue, {"hostile-list": 1, b"hostile-\xff\xfe": 1})

        await self._tell_redis(send)
        if self._load.accepted:
            await self._load.foreign(self._rng.choice([a.job.thread_id for a in self._load.accepted.values()]))

    # What they share.

    def _kill_now(self, slot: Slot) -> None:
        if slot.pid:
            self.killed[slot.pid] = time.time()
        slot.signal(signal.SIGKILL)

    def _slot(self, fault: Fault) -> Slot:
        return self._fleet.slots[fault.worker]

    async def _taken(self, slot: Slot, order: str, argument: str) -> bool:
        """Give an order and wait until the worker has taken it; False: it did not come to that point."""
        self._orders.give(slot.name, order, argument)
        end = time.monotonic() + _MOMENT_SECONDS
        while time.monotonic() < end and self._orders.waits(slot.name, order):
            await asyncio.sleep(0.02)
        return not self._orders.withdraw(slot.name, order)

    async def _busy_moment(self, fault: Fault) -> None:
        """Better in the middle of a job than between two; but not for ever."""
        slot = self._slot(fault)
        query = "SELECT count(*) FROM threadline.jobs WHERE state = 'running' AND worker_id LIKE %s"
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            rows = await self._ask(query, f"%-{slot.pid}-%")
            if rows and rows[0][0]:
                return
            await asyncio.sleep(0.05)

    async def _worker_of(self, accepted: Accepted) -> Slot | None:
        end = time.monotonic() + _MOMENT_SECONDS
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

    @asynccontextmanager
    async def _proxies(self, mode: str, *proxies: Any) -> AsyncIterator[None]:
        try:
            for proxy in proxies:
                await proxy.set(mode)
            yield
        finally:
            for proxy in proxies:
                await proxy.set("pass")

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Redis]:
        async with Redis.from_url(self._control.urls.redis_url, socket_timeout=5) as redis:
            yield redis

    async def _tell_redis(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        """Redis may be away because of another fault; then this one is in vain."""
        with contextlib.suppress(RedisError, OSError):
            async with self._redis() as redis:
                await call(redis)
