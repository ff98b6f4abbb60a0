"""Release 0.1.0 as it was shipped: its client and its workers in processes of their own, from the kept wheel."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.workers import WorkerHandle

__all__ = ["WHEEL", "PreviousClient", "PreviousWorker", "previous_env", "run_previous"]

WHEEL = Path(__file__).parents[1] / "upgrade" / "threadline-0.1.0-py3-none-any.whl"
#: Answers a line with a line; an error by its class and message.
_CLIENT = """
import asyncio, json, sys
import msgspec
from threadline import Client, __version__
assert __version__ == "0.1.0", __version__

async def call(client, name, *arguments, **options):
    if name == "enqueue":
        return (await client.enqueue(*arguments, **options)).job_id
    if name == "jobs":
        return await client.jobs(**options)
    if name == "retry":
        return (await client.retry(*arguments)).job_id
    job = await client.job(arguments[0])
    if name == "events":
        return [event async for event in job.events()]
    return await getattr(job, name)(**options)

async def main():
    async with Client.from_env() as client:
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, arguments, options = json.loads(line)
            try:
                answer = {"answer": await call(client, name, *arguments, **options)}
            except Exception as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            print(msgspec.json.encode(answer).decode(), flush=True)

asyncio.run(main())
"""


def previous_env(env: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment in which `python -m threadline.cli` is 0.1.0, with the dependencies of today."""
    root = folder / "threadline-0.1.0"
    if not root.exists():
        zipfile.ZipFile(WHEEL).extractall(root)
    # Before what the virtual environment has of today's release; the graphs of the tests behind it.
    return {**env, "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parents[1])])}


def run_previous(env: dict[str, str], *arguments: str) -> str:
    """A command of 0.1.0; its standard output. Raises CalledProcessError."""
    command = [sys.executable, "-m", "threadline.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


class PreviousWorker(WorkerHandle):
    """A worker process of 0.1.0."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        command = [sys.executable, "-m", "threadline.cli", "worker", *arguments]
        popen: Any = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.process = popen  # has all that the handle asks a Nursling for
        self.lines: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.worker_id = self.metrics_url = ""


class PreviousClient:
    """`call("enqueue", agent, input, thread_id=…)` and so on, by 0.1.0's Client in a process of its own."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLIENT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=20)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """What the client gave, as JSON. AssertionError with what it raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, arguments, options]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer["answer"]
