"""Invariant 8 of a chaos run: nothing is kept of what is over, neither in a worker nor in a server.

First the workers are looked at while they live and have nothing to do: their tasks, threads, files, memory and what
they keep of their jobs (`support.chaos_failpoints` counts it in them), and their connections as the servers' side sees
them. Then, when they are gone, what they left in Postgres and Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil  # type: ignore[import-untyped]  # it has no stubs here
import psycopg
from psycopg.rows import dict_row
from redis import Redis

from support.chaos_processes import Fleet, Slot
from threadline.contract.keys import Keys
from threadline_worker.embedded import ServerUrls

__all__ = ["CONCURRENCY", "Idle", "Remains", "all_is_announced", "idle", "leaks", "queue_is_empty", "remains"]

#: Of each worker of a chaos run.
CONCURRENCY: Final = 4
_EMPTY_SECONDS: Final = 8.0
_STOP_SECONDS: Final = 15.0
#: What a job has one of; none of them outlives it.
_OF_A_JOB: Final = ("Run", "Execution", "GraphRun", "Publisher", "FencedSaver", "FencedStore", "Claim")
#: The program's own, sweep and its steps, consume, poll, listen, webhooks, three of each of two pools; measured: 15.
_MOST_TASKS: Final = 20
#: Ledger pool, saver pool, beat, sweep; and one for a pool that is replacing a broken one.
_MOST_POSTGRES: Final = 4 + CONCURRENCY + 2 + 1
#: One for each call at a time, one that listens; measured: 4.
_MOST_REDIS: Final = CONCURRENCY + 6
#: Main, beat, port, and the executor's; measured: 7.
_MOST_THREADS: Final = 40
_MOST_FILES: Final = 60
#: Measured: 10 MiB at most between its first seconds and the end of ten minutes; a forked process unshares pages.
_MOST_GROWTH: Final = 48 * 2**20


@dataclass
class Idle:
    """A living worker that has nothing to do. `rss_before` is what it had when it had just begun to work."""

    name: str
    tasks: list[str]
    kept: dict[str, int]
    rss_before: int
    rss: int
    files: int
    threads: int
    redis_connections: int
    postgres_connections: int


@dataclass
class Remains:
    """What is left in the servers when all workers have been told to end."""

    late: Sequence[str]
    sessions: list[str]
    rows: dict[str, int]
    messages: dict[str, float]
    keys: dict[str, int]


def leaks(workers: Sequence[Idle], left: Remains) -> list[str]:
    """Violations; pure, so that a test can spoil each figure."""
    found = [f"(8) {worker.name} {what}" for worker in workers for what in _of_worker(worker)]
    found += [f"(8) {name} did not end within {_STOP_SECONDS:g} s of SIGTERM" for name in left.late]
    found += [f"(8) a session of {name} is left" for name in left.sessions]
    found += [f"(8) {count} rows are left in {table}" for table, count in left.rows.items() if count]
    found += [f"(8) message {name!r}, due in {due} s, is left in the queue" for name, due in left.messages.items()]
    # Logs stay for a day; an arq message's retry counter and the stranger's bodies for at most that.
    return found + [
        f"(8) {key} is left in Redis"
        for key, ttl in left.keys.items()
        if (ttl == -1 and key != Keys().queue) or key.startswith("arq:in-progress")
    ]


def _of_worker(worker: Idle) -> Iterator[str]:
    runs = [name for name in worker.tasks if name.startswith(("run ", "publish "))]
    if runs or len(worker.tasks) > _MOST_TASKS:
        yield f"has the tasks {', '.join(worker.tasks)}"
    if kept := {kind: count for kind, count in worker.kept.items() if kind in _OF_A_JOB and count}:
        yield f"keeps {kept} of jobs that are over"
    figures = {
        "connections to Postgres": (worker.postgres_connections, _MOST_POSTGRES),
        "connections to Redis": (worker.redis_connections, _MOST_REDIS),
        "threads": (worker.threads, _MOST_THREADS),
        "open files": (worker.files, _MOST_FILES),
        "bytes more than at its beginning": (worker.rss - worker.rss_before, _MOST_GROWTH),
    }
    for what, (count, most) in figures.items():
        if count > most:
            yield f"has {count} {what}"


async def idle(fleet: Fleet, database_url: str, rss_before: dict[int, int]) -> list[Idle]:
    """Look at all workers that live."""
    return [await _look(fleet, slot, database_url, rss_before) for slot in fleet.slots if slot.pid]


async def _look(fleet: Fleet, slot: Slot, database_url: str, rss_before: dict[int, int]) -> Idle:
    counted = await fleet.count(slot)
    process = psutil.Process(slot.pid)
    # Backends that a terminated client left behind would still be listed by its name.
    query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'threadline:%-{slot.pid}-%'"
    rss = process.memory_info().rss
    return Idle(
        name=slot.name,
        tasks=counted["tasks"],
        kept=counted["kept"],
        rss_before=rss_before.get(slot.pid, rss),
        rss=rss,
        files=process.num_fds(),
        threads=process.num_threads(),
        redis_connections=slot.redis.connections,
        postgres_connections=(await asyncio.to_thread(rows, database_url, query))[0]["count"],
    )


async def remains(fleet: Fleet, urls: ServerUrls) -> Remains:
    """Tell all workers to end, and look at what is left of them."""
    late = await fleet.stop(_STOP_SECONDS)
    query = "SELECT application_name AS name FROM pg_stat_activity WHERE application_name LIKE 'threadline:%'"
    tables = {
        "workers": "SELECT count(*) FROM threadline.workers",
        "threads, half restored": "SELECT count(*) FROM threadline.threads WHERE restoring IS NOT NULL",
        "jobs, running": "SELECT count(*) FROM threadline.jobs WHERE state = 'running'",
        "jobs, unannounced": "SELECT count(*) FROM threadline.jobs WHERE announced < epoch AND epoch > 0",
        "cancel_requests, unheard": "SELECT count(*) FROM threadline.cancel_requests"
        " JOIN threadline.jobs USING (job_id) WHERE state IN ('queued', 'running')",
    }
    counts = {
        table: (await asyncio.to_thread(rows, urls.database_url, ask))[0]["count"] for table, ask in tables.items()
    }
    messages, keys = await asyncio.to_thread(_in_redis, urls.redis_url)
    sessions = [row["name"] for row in await asyncio.to_thread(rows, urls.database_url, query)]
    return Remains(late, sessions, counts, messages, keys)


async def queue_is_empty(url: str) -> None:
    """Wake-ups of jobs that have ended meanwhile are still taken, and dropped."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EMPTY_SECONDS):
            while (await asyncio.to_thread(_in_redis, url))[0]:
                await asyncio.sleep(0.2)


async def all_is_announced(database_url: str) -> None:
    """What a client has ended and announced itself, a worker's sweep notes a little later."""
    query = "SELECT count(*) FROM threadline.jobs WHERE announced < epoch AND epoch > 0"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EMPTY_SECONDS):
            while (await asyncio.to_thread(rows, database_url, query))[0]["count"]:
                await asyncio.sleep(0.2)


def _in_redis(url: str) -> tuple[dict[str, float], dict[str, int]]:
    """Message → seconds until it is due; key → its time to live."""
    with Redis.from_url(url) as redis:
        keys = {key.decode("utf-8", "replace"): redis.ttl(key) for key in redis.scan_iter(count=1000)}
        seconds = redis.time()[0]
        waiting = redis.zrange(Keys().queue, 0, -1, withscores=True)
    return {repr(name): round(due / 1000 - seconds, 1) for name, due in waiting}, keys


def rows(database_url: str, query: str) -> list[dict[str, Any]]:
    """All rows of a query, past all proxies."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()
