"""The workers of a chaos run: real processes, each behind proxies of its own, started again whenever they end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import threadline
import threadline_worker
from support.chaos_orders import FOLDER, WORKER
from support.fault_proxy import FaultProxy
from support.nursery import spoken_to
from threadline_worker.embedded import ServerUrls

__all__ = ["Fleet", "Slot", "package_roots"]

_TESTS = Path(__file__).parent.parent
#: As an impatient supervisor has it.
_RESTART_SECONDS = 0.2


class Slot:
    """A place for one worker at a time. `redis` and `postgres` are its proxies."""

    def __init__(self, name: str, redis: FaultProxy, postgres: FaultProxy) -> None:
        self.name = name
        self.redis = redis
        self.postgres = postgres
        self.pid = 0
        self.codes: list[int] = []
        #: Every process this slot has had.
        self.pids: list[int] = []
        self.wanted = True
        self.frozen = False
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)

    def freeze(self) -> None:
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self.signal(signal.SIGCONT)


class Fleet:
    """All workers; they run the very package that this process has imported, so a mutant if it has one."""

    def __init__(self, urls: ServerUrls, folder: Path, size: int, env: dict[str, str]) -> None:
        self._urls = urls
        self._folder = folder
        self._size = size
        self._env = env
        self._path = os.pathsep.join([*package_roots(), str(_TESTS)])
        self._stack = AsyncExitStack()
        self._program: BaseProcess | None = None
        self._orders = -1
        self._said = asyncio.StreamReader()
        self._by_pid: dict[int, Slot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.slots: list[Slot] = []

    async def __aenter__(self) -> Self:
        for number in range(self._size):
            redis = await self._stack.enter_async_context(FaultProxy(self._urls.redis_url))
            postgres = await self._stack.enter_async_context(FaultProxy(self._urls.database_url))
            self.slots.append(Slot(f"w{number}", redis, postgres))
        env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._program, self._orders, said = spoken_to("support.chaos_worker", {**env, "PYTHONPATH": self._path})
        listening, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._said), os.fdopen(said, "rb")
        )
        self._stack.callback(listening.close)
        imported = (await self._hear())["ready"]
        assert imported == threadline_worker.__file__, f"workers would run {imported}"
        self._own(self._listen())
        for slot in self.slots:
            self._start(slot)
        return self

    async def __aexit__(self, *_error: object) -> None:
        for slot in self.slots:
            slot.wanted = False
            slot.signal(signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._program is not None:
            os.close(self._orders)
            await asyncio.to_thread(self._program.join)
        await self._stack.aclose()

    def of_pid(self, pid: int) -> Slot | None:
        return next((slot for slot in self.slots if slot.pid == pid), None)

    def of_worker(self, worker_id: str | None) -> Slot | None:
        """`worker_id` is host-pid-random."""
        return self.of_pid(int(worker_id.split("-")[-2])) if worker_id else None

    async def stop(self, seconds: float) -> Sequence[str]:
        """SIGTERM to all; who has not ended in time."""
        for slot in self.slots:
            slot.wanted = False
            slot.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for slot in self.slots:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.01)):
                    await slot.ended.wait()
        return [slot.name for slot in self.slots if slot.pid]

    async def count(self, slot: Slot) -> dict[str, Any]:
        """What a worker counts in itself: tasks, objects of ours that are kept, all objects."""
        file = self._folder / f"{slot.name}.count.json"
        file.unlink(missing_ok=True)
        slot.signal(signal.SIGUSR2)
        async with asyncio.timeout(10):
            while not file.exists():
                await asyncio.sleep(0.02)
        return dict(json.loads(file.read_text()))

    def _start(self, slot: Slot) -> None:
        env = {
            **self._env,
            "PYTHONPATH": self._path,
            "REDIS_URL": slot.redis.url,
            "DATABASE_URL": slot.postgres.url,
            FOLDER: str(self._folder),
            WORKER: slot.name,
        }
        order = {"name": slot.name, "env": env, "log": str(self._folder / f"{slot.name}.log")}
        os.write(self._orders, json.dumps(order).encode() + b"\n")

    async def _listen(self) -> None:
        while True:
            said = await self._hear()
            if "started" in said:
                slot = next(slot for slot in self.slots if slot.name == said["started"])
                slot.pid = said["pid"]
                slot.pids.append(slot.pid)
                self._by_pid[slot.pid] = slot
                slot.ended.clear()
                slot.started.set()
            else:
                self._own(self._after_end(self._by_pid.pop(said["ended"]), said["code"]))

    async def _after_end(self, slot: Slot, code: int) -> None:
        slot.pid = 0
        slot.frozen = False
        slot.codes.append(code)
        slot.started.clear()
        slot.ended.set()
        await asyncio.sleep(_RESTART_SECONDS)
        if slot.wanted:
            self._start(slot)

    async def _hear(self) -> dict[str, Any]:
        line = await self._said.readline()
        if not line:
            raise AssertionError("the program that forks workers has ended; its error stands above")
        return dict(json.loads(line))

    def _own(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def package_roots() -> list[str]:
    """The folders that both halves of the package were imported from, for a worker's PYTHONPATH."""
    return [str(Path(str(package.__file__)).parent.parent) for package in (threadline, threadline_worker)]
