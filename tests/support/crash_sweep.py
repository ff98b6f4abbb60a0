"""A program: runs one job again and again, each time killed at another call, then finished by a second worker.

`python -m support.crash_sweep AGENT INPUT-JSON [--answer JSON] [--sample N --seed S]` with a worker's environment. Both
workers are whole workers (`WorkerProcess`) in processes of their own, forked from this one, so that nothing is imported
twice. With an answer the job comes to wait for a person, who gives it, and the run that follows is swept, too. One JSON
line a point: where it was killed, the thread, its head's step then; the last line is the undisturbed run.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import itertools
import json
import os
import random
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

from threadline import Client
from threadline.ledger.custody import Custody
from threadline.ledger.sql import Queries
from threadline_worker.checkpoints import FencedSaver
from threadline_worker.main import WorkerProcess
from threadline_worker.settings import WorkerSettings
from threadline_worker.telemetry.logs import configure_logs

KILLED = 99
_CALLS = ((FencedSaver, "aput"), (FencedSaver, "aput_writes"), (Custody, "note_checkpoint"), (Custody, "finish"))


class _Point(NamedTuple):
    """Call n // 2 of the job (part 0) or of the run after the answer (part 1): before, or if n is odd after it."""

    part: int
    n: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent")
    parser.add_argument("input", type=json.loads)
    parser.add_argument("--answer", type=json.loads)
    parser.add_argument("--sample", type=int, help="only so many points, chosen by the seed")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    configure_logs(os.environ.get("THREADLINE_LOG_LEVEL", "error"), "json")
    for source in os.environ["THREADLINE_AGENTS"].split(","):
        importlib.import_module(source.partition("=")[2].partition(":")[0])  # once, before all forks
    undisturbed = _one(wanted.agent, wanted.input, wanted.answer, None)
    points = [_Point(part, n) for part, passed in enumerate(undisturbed["passed"]) for n in range(passed)]
    if wanted.sample is not None:
        points = sorted(random.Random(wanted.seed).sample(points, min(wanted.sample, len(points))))
    for point in points:
        _say(_one(wanted.agent, wanted.input, wanted.answer, point))
    _say(undisturbed)


def _one(agent: str, value: Any, answer: Any, point: _Point | None) -> dict[str, Any]:
    """A job from its enqueue to its end, killed at most once on its way."""
    found: dict[str, Any] = {"point": point, "killed": False, "jobs": [], "passed": []}
    found["thread"], job = _enqueue(agent, value, "undisturbed" if point is None else f"{point.part}-{point.n}")
    for part in range(1 if answer is None else 2):
        if part:
            job = _answer(found["thread"], answer)
        found["jobs"].append(job)
        code, passed = _passed(point.n if point is not None and point.part == part else None)
        found["passed"].append(passed)
        if code == KILLED:
            found |= {"killed": True, "head": _head(found["thread"])}
            rescue()
            code = in_a_process(lambda: work(None))
        assert code == 0, f"{point}: a worker ended with {code}"
    return {**found, "job": job}


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)  # noqa: T201 - its output


def _passed(point: int | None) -> tuple[int, int]:
    """A worker's exit code, and how often it passed one of the points."""
    told, tell = os.pipe()
    code = in_a_process(lambda: work(point, tell))
    os.close(tell)
    with os.fdopen(told) as pipe:
        return code, int(pipe.read() or 0)


def in_a_process(call: Callable[[], None]) -> int:
    """Its exit code."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # one that hangs ends, also when this program was killed
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def work(point: int | None, tell: int | None = None) -> None:
    """A worker until nothing is left to do, killed at a point; where it was not, `tell` hears how many it passed."""
    passed = _count_and_kill(point)
    asyncio.run(WorkerProcess(WorkerSettings.from_env(), burst=True).run())
    if tell is not None:
        os.write(tell, str(next(passed)).encode())


def _count_and_kill(point: int | None) -> itertools.count[int]:
    """Point 2n is before the n-th call, 2n + 1 after it: with the answer given, before anybody heard it."""
    passed = itertools.count()

    def hook(kind: type, name: str) -> None:
        real = getattr(kind, name)

        @functools.wraps(real)  # LangGraph looks into the signature for `task_path`
        async def call(*args: Any, **more: Any) -> Any:
            if next(passed) == point:
                os._exit(KILLED)
            answer = await real(*args, **more)
            if next(passed) == point:
                os._exit(KILLED)
            return answer

        setattr(kind, name, call)

    for kind, name in _CALLS:
        hook(kind, name)
    return passed


def _enqueue(agent: str, value: Any, name: str) -> tuple[str, str]:
    async def run() -> tuple[str, str]:
        async with Client.from_env() as client:
            job = await client.enqueue(agent, value, thread_id=f"{agent}-{name}")
            return job.thread_id, job.job_id

    return asyncio.run(run())


def _answer(thread: str, answer: Any) -> str:
    """A person's; the id of the job that goes on."""

    async def run() -> str:
        async with Client.from_env() as client:
            return (await client.resume(thread, answer)).job_id

    return asyncio.run(run())


def rescue() -> None:
    """At once: nobody waits for a lease here."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DELETE FROM threadline.workers")
        connection.execute(Queries("threadline")["rescue"], {"worker_id": None, "limit": 3, "silent_since": None})


def _head(thread: str) -> int | None:
    rows = _sql(
        "SELECT (metadata->>'step')::int FROM threadline.checkpoints WHERE thread_id = %s AND checkpoint_ns = ''"
        " ORDER BY checkpoint_id DESC LIMIT 1",
        thread,
    )
    return rows[0][0] if rows else None


def _sql(query: str, *params: Any) -> list[Any]:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        cursor = connection.execute(query.encode(), params)
        return cursor.fetchall() if cursor.description else []


if __name__ == "__main__":
    main()
