"""A program: changes, forks or compacts a thread again and again, each time with the worker killed at another moment.

`python -m support.travel_sweep update_state|fork|compact [POINT …]` with a worker's environment; without points: all
there are. A worker is killed (SIGKILL) before or after a statement of the operation's own, or of the ledger's `finish`;
then another one goes on. One JSON line a point, the last one undisturbed: how the job ended, the checkpoints that it
made, how many rows the thread has, and whether its head is the one that was answered.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import signal
import sys
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection

from support.crash_sweep import in_a_process, rescue, work
from support.desk import LedgerView
from threadline import Client
from threadline.contract.job import new_id
from threadline.ledger.custody import Custody
from threadline.ledger.database import Database
from threadline.ledger.internal import Asked, InternalJobs
from threadline.ledger.ledger import Ledger
from threadline.ledger.sql import Queries
from threadline_worker.telemetry.logs import configure_logs

KILLED = -signal.SIGKILL
#: More points than any operation has, and threads for them.
_NEVER, _MOST = 1_000, 90
_ARGUMENTS: dict[str, Any] = {
    "update_state": {"values": {"lines": ["by hand"]}, "as_node": "first"},
    "fork": {"checkpoint_id": None},
    "compact": {},
}


def main() -> None:
    operation, *some = sys.argv[1:]
    configure_logs(os.environ.get("THREADLINE_LOG_LEVEL", "error"), "json")
    source = asyncio.run(_talk())
    in_a_process(lambda: work(None))
    points = [*map(int, some), _NEVER] if some else range(_NEVER)
    copies = [asyncio.run(_ask("fork", source, new_id())) for _point in range(min(len(points), _MOST))]
    in_a_process(lambda: work(None))
    for point, copied in zip(points, copies, strict=False):
        about = LedgerView(os.environ["DATABASE_URL"]).job(copied)["thread_id"]
        target = new_id() if operation == "fork" else about
        job_id = asyncio.run(_ask(operation, about, target))
        code = in_a_process(lambda point=point: _work(operation, point))
        found: dict[str, Any] = {"point": point, "killed": code == KILLED}
        if code == KILLED:
            rescue()
            found["recovered"] = in_a_process(lambda: work(None))
        print(json.dumps({**found, **_found(target, job_id)}), flush=True)  # noqa: T201 - its output
        if code != KILLED:
            return


async def _talk() -> str:
    async with Client.from_env() as client:
        job = await client.enqueue("diary", {"lines": ["turn 0"], "seen": []})
        return job.thread_id


async def _ask(operation: str, source: str, target: str) -> str:
    asked = Asked(operation, source, target, _ARGUMENTS[operation], None, None, 60)
    async with Database(os.environ["DATABASE_URL"], application_name="sweep") as database:
        stored, _agent = await InternalJobs(Ledger(database, Queries("threadline"))).ask(
            new_id(), asked, dispatching=False
        )
        return stored.job_id


def _work(operation: str, point: int) -> None:
    _kill_at(operation, point)
    work(None)


def _kill_at(operation: str, point: int) -> None:
    """Point 2n is before the n-th call, 2n + 1 after it."""
    passed = itertools.count()

    def dies() -> None:
        if next(passed) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(kind: type, name: str, *, everywhere: bool = False) -> None:
        real = getattr(kind, name)

        @functools.wraps(real)
        async def call(*args: Any, **more: Any) -> Any:
            task = asyncio.current_task()
            counted = everywhere or (task is not None and task.get_name().startswith(f"{operation} "))
            if counted:
                dies()
            answer = await real(*args, **more)
            if counted:
                dies()
            return answer

        setattr(kind, name, call)

    hook(AsyncConnection, "execute")
    hook(AsyncPostgresSaver, "aput")
    hook(AsyncPostgresSaver, "aput_writes")
    hook(Custody, "finish", everywhere=True)


def _found(thread: str, job_id: str) -> dict[str, Any]:
    view = LedgerView(os.environ["DATABASE_URL"])
    made = view.rows(
        "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s AND metadata ->> 'update_id' = %s", thread, job_id
    )
    count = "SELECT count(*)::int AS n FROM {} WHERE thread_id = %s"
    job = view.job(job_id)
    return {
        "state": job["state"],
        "made": len(made),
        "rows": [view.rows(count.format(f"checkpoint{table}"), thread)[0]["n"] for table in ("s", "_blobs", "_writes")],
        "head": job["result"] and job["result"].get("checkpoint_id") == _head(view, thread),
    }


def _head(view: LedgerView, thread: str) -> str:
    rows = view.rows(
        "SELECT max(checkpoint_id) AS id FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = ''", thread
    )
    return str(rows[0]["id"])


if __name__ == "__main__":
    main()
