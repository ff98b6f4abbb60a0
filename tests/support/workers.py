"""Worker processes for tests: started for real, killed for real, and waited for by what they log."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from types import TracebackType
from typing import Any, Self

import httpx

from support.nursery import Nursling

__all__ = ["WorkerHandle", "Workers"]


class WorkerHandle:
    """One process. `logged(event)` waits for a log line (each line is looked at once, in order)."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        self.process = Nursling(["worker", *arguments], env)
        self.lines: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.worker_id = ""
        self.metrics_url = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self, timeout: float = 60) -> Self:
        """Wait until it takes jobs."""
        self.metrics_url = str(self.logged("worker.configuration", timeout, has="metrics")["metrics"])
        self.worker_id = str(self.logged("worker.ready", timeout)["worker_id"])
        return self

    def logged(self, event: str, timeout: float = 30, has: str | None = None) -> dict[str, Any]:
        """The next log line of this event; AssertionError with the log if the process ends or time runs out."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._events.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no {event} within {timeout} s; the log:\n" + "".join(self.lines[-60:])) from None
            if line is None:
                raise AssertionError(f"the worker ended before {event}; the log:\n" + "".join(self.lines[-60:]))
            if line.get("event") == event and (has is None or has in line):
                return line

    def seen(self) -> list[str]:
        """The names of all events logged so far."""
        return [str(entry.get("event")) for entry in self.entries]

    def metrics(self) -> str:
        """What `/metrics` says."""
        return httpx.get(self.metrics_url).text

    def status(self, path: str) -> tuple[int, list[str]]:
        """The status and the reasons of `healthz` or `readyz`."""
        answer = httpx.get(self.metrics_url.replace("/metrics", f"/{path}"))
        return answer.status_code, answer.json()["reasons"]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout: float = 40) -> int:
        """SIGTERM, wait for the end; the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        self.process.stderr.close()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line.strip()}
            entry = entry if isinstance(entry, dict) else {"event": line.strip()}
            self.entries.append(entry)
            self._events.put(entry)
        self._events.put(None)


class Workers:
    """All worker processes of a test."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self.started: list[WorkerHandle] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.started:
            worker.close()

    def start(self, *arguments: str, wait: bool = True, **env: str) -> WorkerHandle:
        worker = WorkerHandle({**self._env, **env}, *arguments)
        self.started.append(worker)
        return worker.ready() if wait else worker
