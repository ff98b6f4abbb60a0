"""What goes wrong inside a worker of a chaos run, on order; the product knows nothing of it.

`install()` wraps calls of the worker in its own process. Orders (see `support.chaos_orders`): `exit@<point>` ends the
process at once as a crash would, `stop@<point>` is a SIGSTOP there. Points are `<call>.before` and `<call>.after` of
the calls below, and `fence.before`: the write is on the server, its fence and its Sync are not. The setting `clock`
is the number of seconds by which this process' clock is wrong.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import heapq
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psycopg import AsyncCursor

from support.chaos_orders import FOLDER, WORKER, setting, take
from threadline.ledger.custody import Custody
from threadline_worker.announce import Announcer
from threadline_worker.checkpoints import FencedSaver

__all__ = ["CRASHED", "POINTS", "install"]

#: The exit code of an ordered crash.
CRASHED = 99
_CALLS: dict[str, tuple[type, str]] = {
    "claim": (Custody, "claim"),
    "note": (Custody, "note_checkpoint"),
    "put": (FencedSaver, "aput"),
    "writes": (FencedSaver, "aput_writes"),
    "finish": (Custody, "finish"),
    "announce": (Announcer, "announce"),
    "restore": (Custody, "restore"),
}
#: Where a process may be ordered to end (`restore` is a call of each round, so only its end makes a point).
POINTS = [f"{call}.{side}" for call in _CALLS for side in ("before", "after") if call != "restore"]
_CLOCK_READ_SECONDS = 0.05


def install() -> None:
    """Once, in the worker's process, before it starts."""
    for call, (kind, name) in _CALLS.items():
        setattr(kind, name, _around(getattr(kind, name), call))
    _stop_before_fences()
    _bend_clock()
    signal.signal(signal.SIGUSR2, _count_soon)


def _around(real: Callable[..., Any], call: str) -> Callable[..., Any]:
    @functools.wraps(real)  # LangGraph looks into the signature for `task_path`
    async def hooked(*args: Any, **more: Any) -> Any:
        _pass(f"{call}.before")
        answer = await real(*args, **more)
        _pass(f"{call}.after")
        return answer

    return hooked


def _pass(point: str) -> None:
    if take(f"exit@{point}") is not None:
        os._exit(CRASHED)
    if take(f"stop@{point}") is not None:
        os.kill(os.getpid(), signal.SIGSTOP)


def _stop_before_fences() -> None:
    real = AsyncCursor.execute

    async def execute(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:
        if "assert_fence" in str(query):
            if take("stop@fence.before") is not None:
                _send_what_is_queued(cursor)
                os.kill(os.getpid(), signal.SIGSTOP)
            if take("exit@fence.before") is not None:
                _send_what_is_queued(cursor)
                os._exit(CRASHED)
        return await real(cursor, query, *args, **more)

    setattr(AsyncCursor, "execute", execute)  # noqa: B010 - that is what a failpoint is


def _send_what_is_queued(cursor: Any) -> None:
    cursor.connection.pgconn.send_flush_request()
    cursor.connection.pgconn.flush()


def _bend_clock() -> None:
    real, real_ns = time.time, time.time_ns
    read_at, offset = float("-inf"), 0.0

    def bent() -> float:
        nonlocal read_at, offset
        if time.monotonic() - read_at > _CLOCK_READ_SECONDS:
            read_at, offset = time.monotonic(), float(setting("clock") or 0)
        return offset

    time.time = lambda: real() + bent()
    time.time_ns = lambda: real_ns() + int(bent() * 1e9)


def _count_soon(_number: int, _frame: Any) -> None:
    """SIGUSR2: between two steps of the loop."""
    asyncio.get_running_loop().call_soon_threadsafe(_count)


def _count() -> None:
    """The loop's tasks, our own objects by their class, and how many objects there are in all."""
    _forget_cancelled_timers(asyncio.get_running_loop())
    gc.collect()
    objects = gc.get_objects()
    ours = Counter(type(one).__name__ for one in objects if type(one).__module__.startswith("threadline"))
    counted = {
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
        "kept": dict(ours),
        "objects": len(objects),
    }
    target = Path(os.environ[FOLDER]) / f"{os.environ[WORKER]}.count.json"
    draft = target.with_suffix(".draft")
    draft.write_text(json.dumps(counted))
    draft.rename(target)


def _forget_cancelled_timers(loop: Any) -> None:
    """A timeout that was not needed keeps its context, and so a run, until its time has come; it is no leak.

    asyncio drops them as here once there are a hundred and most are cancelled.
    """
    for timer in loop._scheduled:
        timer._scheduled = not timer._cancelled
    loop._scheduled = [timer for timer in loop._scheduled if not timer._cancelled]
    heapq.heapify(loop._scheduled)
    loop._timer_cancelled_count = 0
