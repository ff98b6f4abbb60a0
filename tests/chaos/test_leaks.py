"""Invariant 8 is really looked at: each figure can spoil a run, and a worker keeps nothing of its jobs."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no stubs here

from support.chaos_leaks import Idle, Remains, idle, leaks, queue_is_empty, remains
from support.chaos_run import Arena, arena
from support.gates import until
from threadline import Client

JOBS = 200
Spoil = Callable[[list[Idle], Remains], None]

SPOILS: dict[str, Spoil] = {
    "has the tasks": lambda workers, _: workers[0].tasks.append("run of a job that is over"),
    "a, b, c": lambda workers, _: workers[0].tasks.extend("abcdefghijklmnopqrstuvwxyz"),
    "keeps {'Run': 1}": lambda workers, _: workers[0].kept.update(Run=1),
    "99 connections to Postgres": lambda workers, _: setattr(workers[0], "postgres_connections", 99),
    "99 connections to Redis": lambda workers, _: setattr(workers[0], "redis_connections", 99),
    "99 threads": lambda workers, _: setattr(workers[0], "threads", 99),
    "999 open files": lambda workers, _: setattr(workers[0], "files", 999),
    "bytes more": lambda workers, _: setattr(workers[0], "rss", workers[0].rss_before + 2**30),
    "did not end": lambda _, left: setattr(left, "late", ["w0"]),
    "a session of": lambda _, left: left.sessions.append("threadline:w0"),
    "rows are left in workers": lambda _, left: left.rows.update(workers=1),
    "rows are left in threads": lambda _, left: left.rows.update({"threads, half restored": 1}),
    "is left in the queue": lambda _, left: left.messages.update({"b'm'": -3.0}),
    "arq:job:x is left": lambda _, left: left.keys.update({"arq:job:x": -1}),
    "arq:in-progress:x is left": lambda _, left: left.keys.update({"arq:in-progress:x": 4}),
}


async def test_8_a_worker_keeps_nothing_of_its_jobs_and_each_leak_would_be_seen(tmp_path: Path) -> None:
    async with arena(1, workers=1, folder=tmp_path) as made:
        await done(made, JOBS)  # whatever is loaded late, cached or pooled
        before = await weighed(made)
        await done(made, JOBS)
        after = await weighed(made)
        workers = await idle(made.fleet, made.control.urls.database_url, {})
        left = await remains(made.fleet, made.control.urls)
    # One object a job, whatever its kind, is seen; so are 10 KiB a job of anything else.
    assert after["objects"] - before["objects"] < JOBS / 2, (before, after)
    assert after["rss"] - before["rss"] < JOBS * 10 * 1024, (before, after)
    assert leaks(workers, left) == []
    for words, spoil in SPOILS.items():
        mine = copy.deepcopy((workers, left))
        spoil(*mine)
        found = leaks(*mine)
        assert any(words in one for one in found), (words, found)


async def done(made: Arena, count: int) -> None:
    urls = made.control.urls
    async with Client(redis_url=urls.redis_url, database_url=urls.database_url) as client:
        jobs = await asyncio.gather(*(client.enqueue("nothing", {"done": False}) for _ in range(count)))
        for job in jobs:
            await job.result(timeout=60)
    await queue_is_empty(urls.redis_url)


async def weighed(made: Arena) -> dict[str, Any]:
    """Once no task of a job is left."""
    slot = made.fleet.slots[0]

    async def quiet() -> dict[str, Any] | None:
        counted = await made.fleet.count(slot)
        return None if counted["kept"].get("Execution") else counted

    counted = await until(quiet, "the last run is forgotten")
    return {**counted, "rss": psutil.Process(slot.pid).memory_info().rss}
