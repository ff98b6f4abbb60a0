"""Worker processes for `dev` and `demo`: they end with the process that started them, however it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

__all__ = ["LocalWorker", "LocalWorkers"]

#: A worker that shall go and does not within so many seconds is killed; the ledger gives its jobs to the next one.
_STOP_SECONDS = 10.0


class LocalWorker:
    """`threadline worker` with this process' end of its standard input as its lifeline."""

    def __init__(self, name: str, env: Mapping[str, str], log: Path | None, arguments: tuple[str, ...]) -> None:
        self.name = name
        output: IO[bytes] | None = log.open("ab") if log is not None else None
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "threadline.cli", "worker", "--until-eof", *arguments],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C goes to the whole foreground group: the parent decides what its workers do.
                start_new_session=True,
            )
        finally:
            if output is not None:
                output.close()

    @property
    def pid(self) -> int:
        """The process id, which is part of the worker's id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM: a drain."""
        self._process.terminate()

    def close(self) -> None:
        """Wait for the end, kill what does not come to it in time, and let go of the lifeline."""
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()


class LocalWorkers:
    """Several of them; all are gone when the block is left."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.all: list[LocalWorker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.all:
            if worker.code is None:
                worker.terminate()
        for worker in self.all:
            worker.close()

    def start(self, name: str, *arguments: str, log: Path | None = None) -> LocalWorker:
        """Start one more; its output goes to `log`, or to this process' own."""
        worker = LocalWorker(name, self._env, log, arguments)
        self.all.append(worker)
        return worker

    async def keep(self, name: str, *arguments: str) -> None:
        """Start one and start it again whenever it ends by itself; until cancelled."""
        delay = 0.5
        while True:
            worker = self.start(name, *arguments)
            started = asyncio.get_running_loop().time()
            while worker.code is None:  # noqa: ASYNC110 - a Popen has no end to await
                await asyncio.sleep(0.2)
            self.all.remove(worker)
            worker.close()
            lived = asyncio.get_running_loop().time() - started
            delay = 0.5 if lived > 30 else min(delay * 2, 10.0)  # noqa: PLR2004 - half a minute: not a crash loop
            await asyncio.sleep(delay)
