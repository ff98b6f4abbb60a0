"""A program: runs one job again and again, each time killed at another call, then finished by a second worker.

`python -m support.crash_sweep AGENT INPUT-JSON` with a worker's environment. Both workers are whole workers
(`WorkerProcess`) in processes of their own, forked from this one, so that nothing is imported twice. One JSON line a
point: where it was killed, the thread, its head's step then; the last line is the undisturbed run.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

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


def main() -> None:
    agent, text = sys.argv[1:]
    configure_logs(os.environ.get("THREADLINE_LOG_LEVEL", "error"), "json")
    for point in itertools.count():
        thread, job_id = _enqueue(agent, json.loads(text), point)
        code = in_a_process(lambda point=point: work(point))
        found = {"point": point, "thread": thread, "job": job_id, "killed": code == KILLED, "head": _head(thread)}
        if code == KILLED:
            rescue()
            found["recovered"] = in_a_process(lambda: work(None))
        print(json.dumps(found), flush=True)  # noqa: T201 - its output
        if code != KILLED:
            return


def in_a_process(call: Callable[[], None]) -> int:
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


def work(point: int | None) -> None:
    if point is not None:
        _kill_at(point)
    asyncio.run(WorkerProcess(WorkerSettings.from_env(), burst=True).run())


def _kill_at(point: int) -> None:
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


def _enqueue(agent: str, value: Any, point: int) -> tuple[str, str]:
    async def run() -> tuple[str, str]:
        async with Client.from_env() as client:
            job = await client.enqueue(agent, value, thread_id=f"{agent}-{point}")
            return job.thread_id, job.job_id

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
