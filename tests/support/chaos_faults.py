"""The faults of `support.chaos_schedule`, each as a call that does it, waits as long as it lasts and takes it back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection

from support.chaos_job_faults import MOMENT_SECONDS, JobFaults
from support.chaos_processes import Slot
from support.chaos_schedule import Fault

__all__ = ["Faults"]


class Faults(JobFaults):
    """`await inject(fault)`; `heal()` at the end, when all have been awaited or cancelled."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._server_lock = asyncio.Lock()
        #: (kind, begin, end) of what has happened, in true time; `end` is when it was taken back.
        self.done: list[tuple[Fault, float, float]] = []
        self.in_vain: list[Fault] = []

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
        async with self._away(slot):
            await asyncio.sleep(fault.seconds)
        slot.thaw()

    async def _stop_mid_write(self, fault: Fault) -> bool:
        """The worker's backend hangs with the write done and nothing committed, until the worker is let go on."""
        slot = self._slot(fault)
        if not await self._taken(slot, "stop@fence.before", ""):
            return False
        async with self._away(slot):
            await asyncio.sleep(fault.seconds)
        slot.thaw()
        return True

    async def _crash_at(self, fault: Fault) -> bool:
        return await self._taken(self._slot(fault), f"exit@{fault.detail}", "")

    async def _block_loop(self, fault: Fault) -> bool:
        """A tool that blocks the loop for longer than the lease: its worker lives, and keeps its jobs (V1)."""
        return await self._taken(self._slot(fault), "block", f"{fault.seconds}")

    async def _hold_gil(self, fault: Fault) -> bool:
        """Not even the beat runs: others take over, and what this worker still does changes nothing."""
        slot = self._slot(fault)
        if not await self._taken(slot, "gil", f"{fault.seconds}"):
            return False
        async with self._away(slot):
            await asyncio.sleep(fault.seconds)
        return True

    async def _drain_exceeded(self, fault: Fault) -> bool:
        """SIGTERM while a step takes longer than the grace: it is cut."""
        slot = self._slot(fault)
        if not await self._taken(slot, "hang", "30"):
            return False
        slot.signal(signal.SIGTERM)
        return True

    async def _clock(self, fault: Fault) -> None:
        slot = self._slot(fault)
        self._orders.give(slot.name, "clock", fault.detail)
        await asyncio.sleep(fault.seconds)
        self._orders.withdraw(slot.name, "clock")

    # Networks.

    async def _partition(self, fault: Fault) -> None:
        slot = self._slot(fault)
        async with self._proxies("blackhole", slot.redis, slot.postgres), self._away(slot):
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
        proxy.lose_answer(*([fault.detail.encode()] if fault.detail else []))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOMENT_SECONDS):
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

    # What they share.

    def _slot(self, fault: Fault) -> Slot:
        return self._fleet.slots[fault.worker]

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

    @asynccontextmanager
    async def _proxies(self, mode: str, *proxies: Any) -> AsyncIterator[None]:
        try:
            for proxy in proxies:
                await proxy.set(mode)
            yield
        finally:
            for proxy in proxies:
                await proxy.set("pass")
