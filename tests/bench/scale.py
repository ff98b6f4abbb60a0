"""200 workers and 100,000 queued jobs: claims a second, contention, and what an idle worker asks of the servers.

`PYTHONPATH=tests python -m bench.scale [--workers 200 --jobs 100000 --threads 50000 --processes 4]`, or SCALE=small.
One JSON line. The workers are real ones (bench/crew.py), several to a process, with their own rows, beats, sweeps,
connections and arq loops; only their jobs run nothing. It ends with its jobs, or after `limit` seconds of claiming:
then `finished` is false. It fails if a job was claimed twice, or has no end, and, once it is finished, if one is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
from redis.asyncio import Redis

from bench.figures import milliseconds, say
from bench.house import House, house
from support.ledger import Bench
from threadline.ledger.database import Database

__all__ = ["Size", "simulated"]

_POLL_SECONDS: Final = 0.2
_SAMPLE_SECONDS: Final = 0.25
#: A crew's answer: a hundred thousand job ids.
_LINE_BYTES: Final = 2**28
#: The pools have settled, the sweeps are out of step.
_SETTLING_SECONDS: Final = 5.0
_ALL_ENDED: Final = "SELECT NOT EXISTS (SELECT FROM threadline.jobs WHERE state IN ('queued', 'running')) AS ok"
_DEADLOCKS: Final = "SELECT deadlocks AS n FROM pg_stat_database WHERE datname = current_database()"
_WAITS: Final = (
    "SELECT coalesce(wait_event_type || ':' || wait_event, 'running') AS what, count(*) AS n FROM pg_stat_activity"
    " WHERE state = 'active' AND pid <> pg_backend_pid() GROUP BY 1"
)


class Size(NamedTuple):
    """How large. `watch` and `limit` are seconds: how long the idle fleet is watched, and all may take."""

    workers: int = 200
    jobs: int = 100_000
    threads: int = 50_000
    processes: int = 4
    work: float = 0.0
    watch: float = 20.0
    limit: float = 300.0


SMALL: Final = Size(workers=8, jobs=300, threads=150, processes=2, watch=0.5, limit=60.0)


async def simulated(made: House, size: Size) -> dict[str, Any]:
    """The figures of one simulation; `wrong` lists what must not be."""
    async with (
        Database(made.urls.database_url, application_name="bench", max_size=2, limit=300) as database,
        Redis.from_url(made.urls.redis_url) as redis,
        _crews(made, size) as crews,
    ):
        bench = Bench(database)
        if not await _until(bench, crews, size, f"SELECT count(*) = {size.workers} AS ok FROM threadline.workers"):
            raise RuntimeError(f"not all workers had begun after {size.limit:g} s")
        await asyncio.sleep(min(_SETTLING_SECONDS, size.watch))
        idle = await _idle(bench, redis, size)
        await _fill(bench, size)
        before = await _used(bench, redis)
        async with _sampled(bench) as waits:
            began = time.monotonic()
            await bench.sql("NOTIFY threadline")
            finished = await _until(bench, crews, size, _ALL_ENDED)
            seconds = time.monotonic() - began
        after = await _used(bench, redis)
        found = await _drained(crews)
        return {
            "idle_worker": idle,
            "seconds": round(seconds, 1),
            "finished": finished,
            **_figures(found),
            "per_job": _per(before, after, sum(len(crew["jobs"]) for crew in found)),
            "sessions": _shares(waits),
            "deadlocks": (await bench.sql(_DEADLOCKS))[0]["n"],
            "wrong": await _wrong(bench, redis, found, size.jobs if finished else None),
        }


@asynccontextmanager
async def _crews(made: House, size: Size) -> AsyncIterator[list[Process]]:
    each, more = divmod(size.workers, size.processes)
    crews: list[Process] = []
    try:
        for number in range(size.processes):
            argv = [sys.executable, "-m", "bench.crew", str(each + (number < more)), str(size.work)]
            crew = await asyncio.create_subprocess_exec(*argv, env=made.env, stdout=PIPE, limit=_LINE_BYTES)
            crews.append(crew)
        yield crews
    finally:
        for crew in crews:
            with suppress(ProcessLookupError):
                crew.kill()
            await crew.wait()


async def _until(bench: Bench, crews: Sequence[Process], size: Size, question: str) -> bool:
    """Whether it has become true in time."""
    until = time.monotonic() + size.limit
    while not (true := (await bench.sql(question))[0]["ok"]) and time.monotonic() < until:
        if any(crew.returncode is not None for crew in crews):
            raise RuntimeError("a crew has ended: what it said is above")
        await asyncio.sleep(_POLL_SECONDS)
    return bool(true)


async def _idle(bench: Bench, redis: Redis, size: Size) -> dict[str, Any]:
    """What a worker without work costs, a second."""
    began, before = time.monotonic(), await _used(bench, redis)
    await asyncio.sleep(size.watch)
    spent = _per(before, await _used(bench, redis), (time.monotonic() - began) * size.workers)
    [row] = await bench.sql("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'threadline:%%'")
    return {**spent, "own_connections": row["n"] / size.workers, "load": round(os.getloadavg()[0], 1)}


async def _used(bench: Bench, redis: Redis) -> dict[str, float]:
    """What the servers have done so far."""
    [row] = await bench.sql(
        "SELECT (xact_commit + xact_rollback)::float8 AS n, pg_backend_pid() AS pid FROM pg_stat_database"
        " WHERE datname = current_database()"
    )
    told = await redis.info("everything")
    postgres = [psutil.Process(row["pid"]).parent()]
    spent = [one.cpu_times() for one in [*postgres, *postgres[0].children()]]
    return {
        "transactions": row["n"],
        "redis_commands": told["total_commands_processed"],
        "postgres_cpu_ms": sum(one.user + one.system for one in spent) * 1000,
        "redis_cpu_ms": (told["used_cpu_user"] + told["used_cpu_sys"]) * 1000,
    }


def _per(before: dict[str, float], after: dict[str, float], many: float) -> dict[str, float]:
    return {name: round((after[name] - before[name]) / max(many, 1), 3) for name in before}


async def _fill(bench: Bench, size: Size) -> None:
    text = (Path(__file__).parent / "backlog.sql").read_text(encoding="utf-8")
    async with bench.ledger.database.connection() as connection:
        await connection.execute("SET session_replication_role = replica")
        for statement in text.split(";\n"):
            await connection.execute(statement.encode(), {"jobs": size.jobs, "threads": size.threads})
        await connection.execute("SET session_replication_role = origin")


@asynccontextmanager
async def _sampled(bench: Bench) -> AsyncIterator[Counter[str]]:
    """How many sessions were at what, summed over samples; `samples` counts these."""
    waits: Counter[str] = Counter()

    async def sample() -> None:
        while True:
            waits["samples"] += 1
            for row in await bench.sql(_WAITS):
                waits[row["what"]] += row["n"]
            await asyncio.sleep(_SAMPLE_SECONDS)

    sampling = asyncio.create_task(sample())
    try:
        yield waits
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


def _shares(waits: Counter[str]) -> dict[str, float]:
    """Sessions on average."""
    samples = waits.pop("samples", 1)
    return {what: round(n / samples, 2) for what, n in waits.most_common(8)}


async def _drained(crews: Sequence[Process]) -> list[dict[str, Any]]:
    for crew in crews:
        crew.terminate()
    return [json.loads((await crew.communicate())[0]) for crew in crews]


def _figures(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    # One clock: monotonic is the machine's, not the process'.
    moments = sorted(moment for crew in found for moment in crew["moments"])
    seconds = sorted(one for crew in found for one in crew["seconds"])
    took = moments[-1] - moments[0]
    return {
        "claims": len(moments),
        "claims_per_second": round(len(moments) / took, 1),
        "claim_ms": {**milliseconds(seconds), "p95": round(seconds[int(0.95 * len(seconds))] * 1000, 1)},
        "claims_that_found_nothing": sum(crew["misses"] for crew in found),
        "errors": dict(sum((Counter(crew["errors"]) for crew in found), Counter())),
    }


async def _wrong(bench: Bench, redis: Redis, found: Sequence[dict[str, Any]], all_jobs: int | None) -> list[str]:
    counted = Counter(job for crew in found for job in crew["jobs"])
    [row] = await bench.sql(
        "SELECT count(*) FILTER (WHERE state = 'succeeded') AS ended, count(*) FILTER (WHERE epoch = 2) AS once,"
        " coalesce(sum(failures + stalls), 0) AS charged FROM threadline.jobs"
    )
    checks = {
        "claims": (counted.total(), len(counted)),
        "jobs that succeeded": (row["ended"], len(counted)),
        "jobs with one claim and one end": (row["once"], len(counted)),
        "charges": (row["charged"], 0),
    }
    if all_jobs is not None:
        checks["jobs that were claimed"] = (len(counted), all_jobs)
        checks["messages left in the queue"] = (await redis.zcard("threadline:queue"), 0)
    return [f"{what}: {was}, not {due}" for what, (was, due) in checks.items() if was != due]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = SMALL if os.environ.get("SCALE") == "small" else Size()
    for name, value in usual._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    size = Size(**vars(parser.parse_args()))
    with house(max_connections=max(100, 12 * size.workers)) as made:
        found = asyncio.run(simulated(made, size))
    say("scale", **size._asdict(), **found)
    return bool(found["wrong"])


if __name__ == "__main__":
    sys.exit(main())
