"""One chaos run: its own servers and workers, faults by seed, then quiet, then judgement.

`python -m support.chaos_run --seed 1 --minutes 4` prints the schedule, what happens, and a closing table; exit code 1
if an invariant was violated. The evidence stays in the folder that is named then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]  # it has no stubs here
import psycopg
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from support.chaos_faults import Faults
from support.chaos_graph import chaos
from support.chaos_invariants import Judged, Outage, judge
from support.chaos_leaks import CONCURRENCY, all_is_announced, idle, leaks, queue_is_empty, remains, rows
from support.chaos_load import Load
from support.chaos_orders import Orders
from support.chaos_processes import Fleet
from support.chaos_records import Evidence, collect, install_recorder, keep
from support.chaos_schedule import DECK, Fault, make_schedule
from support.servers import ServerControl, controlled_servers
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all

__all__ = ["HEARTBEAT", "LEASE", "Arena", "Report", "arena", "main", "run"]

LEASE: Final = 3.0
HEARTBEAT: Final = 0.5
_QUIET_SECONDS: Final = 60.0
_EMPTIES_REDIS: Final = {"redis_restart_empty", "redis_flushall", "redis_full"}
#: After so long a worker has loaded what it loads late.
_WARM_SECONDS: Final = 6.0


@dataclass
class Arena:
    """What a run has: `evidence()` may be asked for at any time."""

    control: ServerControl
    fleet: Fleet
    load: Load
    orders: Orders
    faults: Faults
    folder: Path
    #: pid → resident bytes when it had just begun to work
    rss: dict[int, int] = field(default_factory=dict)

    def evidence(self) -> Evidence:
        return collect(self.control.urls.database_url, self.folder / "effects")


@dataclass
class Report:
    """How a run went."""

    seed: int
    seconds: float
    faults: int
    in_vain: list[str]
    judged: Judged
    jobs: dict[str, int]
    folder: Path
    leaks: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        return [*self.judged.violations, *self.leaks]

    def table(self) -> str:
        pickup = sorted(self.judged.pickup_seconds)
        rows = {
            "seed": self.seed,
            "seconds": round(self.seconds),
            "faults": f"{self.faults} ({len(self.in_vain)} in vain)",
            "jobs": f"{sum(self.jobs.values())} {self.jobs}",
            "pick-ups after a kill": f"{len(pickup)}, p50 {_quantile(pickup, 50)} s, p95 {_quantile(pickup, 95)} s",
            "marked gaps": self.judged.gaps,
            "nodes begun by zombies": self.judged.wasted,
            "lost with Redis, not adopted yet": self.judged.lost_with_redis,
            "violations": len(self.violations),
        }
        width = max(map(len, rows))
        return "\n".join([*(f"{name:<{width}}  {value}" for name, value in rows.items()), *self.violations])


def _quantile(sorted_values: list[float], percent: int) -> str:
    if len(sorted_values) < 2:
        return f"{sorted_values[0]:.2f}" if sorted_values else "-"
    return f"{statistics.quantiles(sorted_values, n=100, method='inclusive')[percent - 1]:.2f}"


@asynccontextmanager
async def arena(
    seed: int,
    *,
    workers: int = 4,
    lease: float = LEASE,
    folder: Path | None = None,
    most_open: int = 12,
    **env: str,
) -> AsyncIterator[Arena]:
    """Servers, recorder, workers that beat, and nothing to do yet."""
    folder = folder or Path(tempfile.mkdtemp(prefix="threadline-chaos-"))
    orders = Orders(folder)
    with controlled_servers(max_connections=60 + workers * 16) as control:
        async with Database(control.urls.database_url, application_name="chaos", limit=60) as database:
            await migrate_all(database, Keys())
        await asyncio.to_thread(install_recorder, control.urls.database_url)
        environment = {**_environment(folder, lease), **env}
        rng = random.Random(seed + 1)
        async with (
            Fleet(control.urls, folder, workers, environment) as fleet,
            Load(control.urls, random.Random(seed + 2), most_open=most_open) as load,
        ):
            await _beating(control, workers)
            yield Arena(control, fleet, load, orders, Faults(control, fleet, load, orders, rng), folder)


def _environment(folder: Path, lease: float) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **keep,
        "THREADLINE_AGENTS": "chaos=support.chaos_graph:chaos,nothing=support.chaos_graph:nothing",
        "THREADLINE_MODEL": "offline",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_LOG_FORMAT": "json",
        "THREADLINE_HEARTBEAT_SECONDS": f"{HEARTBEAT:g}",
        "THREADLINE_LEASE_SECONDS": f"{lease:g}",
        "THREADLINE_CONCURRENCY": str(CONCURRENCY),
        "THREADLINE_DRAIN_SECONDS": "2",
        "THREADLINE_CACHE_DIR": str(folder / "cache"),
    }


async def run(
    seed: int,
    seconds: float,
    *,
    workers: int = 4,
    lease: float = LEASE,
    deck: Sequence[str] = DECK,
    every: float = 2.0,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Faults for so many seconds, quiet, judgement."""
    schedule = make_schedule(seed, seconds, workers, lease, deck=deck, every=every)
    for fault in schedule:
        say(str(fault))
    async with arena(seed, workers=workers, lease=lease, folder=folder) as made:
        started = time.monotonic()
        await _disturb(made, schedule, seconds, say)
        await made.faults.heal()
        say(f"{time.monotonic() - started:7.1f} s  quiet: {len(made.load.open)} jobs are open")
        await made.load.told(_QUIET_SECONDS)
        leaks = await _leaks(made, lease)
        return await report(made, seed, time.monotonic() - started, leaks, lease=lease)


async def report(made: Arena, seed: int, seconds: float, leaks: list[str], *, lease: float = LEASE) -> Report:
    """Judge what there is now."""
    evidence = made.evidence()
    await asyncio.to_thread(keep, evidence, made.folder / "evidence.json")
    accepted = made.load.known(evidence.jobs)
    evidence.hostile = made.faults.hostile
    undisturbed = {rounds: await _undisturbed(rounds) for rounds in {one.rounds for one in accepted}}
    states, asked = await asyncio.to_thread(_heads, made.control.urls.database_url, evidence)
    done = made.faults.done
    judged = judge(
        evidence,
        accepted,
        states,
        undisturbed,
        away=made.faults.away,
        asked=asked,
        outages=[Outage(begin, end) for _fault, begin, end in done],
        lease=lease,
        redis_lost=any(fault.kind in _EMPTIES_REDIS for fault, _, _ in done),
    )
    jobs = dict(Counter(row["state"] for row in evidence.jobs.values()))
    in_vain = [fault.kind for fault in made.faults.in_vain]
    return Report(seed, seconds, len(done), in_vain, judged, jobs, made.folder, leaks)


async def _disturb(made: Arena, schedule: Sequence[Fault], seconds: float, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    producing = asyncio.create_task(made.load.run())
    watching = asyncio.create_task(_watch_memory(made))
    async with asyncio.TaskGroup() as under_way:
        for fault in schedule:
            await asyncio.sleep(max(0.0, fault.at - (time.monotonic() - began)))
            say(f"{time.monotonic() - began:7.1f} s  {fault.kind} w{fault.worker}: {_progress(made)}")
            under_way.create_task(made.faults.inject(fault))
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
        made.load.stop()
        await producing
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _progress(made: Arena) -> str:
    alive = sum(bool(slot.pid) for slot in made.fleet.slots)
    return f"{len(made.load.accepted)} accepted, {len(made.load.open)} open, {alive} workers"


async def _beating(control: ServerControl, workers: int) -> None:
    query = "SELECT count(*) FROM threadline.workers WHERE lock_ok"
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(rows, control.urls.database_url, query))[0]["count"] < workers:
            await asyncio.sleep(0.1)


async def _leaks(made: Arena, lease: float) -> list[str]:
    """(8), first while the workers live and have nothing to do, then when they are gone."""
    await asyncio.sleep(lease / 2)
    await queue_is_empty(made.control.urls.redis_url)
    await all_is_announced(made.control.urls.database_url)
    workers = await idle(made.fleet, made.control.urls.database_url, made.rss)
    return leaks(workers, await remains(made.fleet, made.control.urls))


async def _watch_memory(made: Arena) -> None:
    """What each worker had after its first seconds of work."""
    born: dict[int, float] = {}
    while True:
        for slot in made.fleet.slots:
            if slot.pid and time.monotonic() - born.setdefault(slot.pid, time.monotonic()) > _WARM_SECONDS:
                with contextlib.suppress(psutil.NoSuchProcess):
                    made.rss.setdefault(slot.pid, psutil.Process(slot.pid).memory_info().rss)
        await asyncio.sleep(0.5)


async def _undisturbed(rounds: int) -> list[str]:
    graph = chaos.compile(checkpointer=InMemorySaver())
    given: Any = {"tag": "x", "rounds": rounds, "poison": "", "asks": False, "done": []}
    state = await graph.ainvoke(given, {"configurable": {"thread_id": "x"}})
    return [entry.removeprefix("x ") for entry in state["done"]]


def _heads(database_url: str, evidence: Evidence) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """thread → `done` at its head, and the ids of the questions there; read by LangGraph's own saver.

    What is committed counts: `get_state` adds what finished tasks of the step under way have left for it.
    """
    options = "-c search_path=threadline,public"
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row, options=options) as connection:
        saver = PostgresSaver(connection)
        graph = chaos.compile(checkpointer=saver)
        threads: dict[str, Any] = {
            row["thread_id"]: {"configurable": {"thread_id": row["thread_id"]}} for row in evidence.jobs.values()
        }
        heads = {thread: saver.get_tuple(config) for thread, config in threads.items()}
        asked = {thread: [one.id for one in graph.get_state(config).interrupts] for thread, config in threads.items()}
    done = {thread: head.checkpoint["channel_values"].get("done", []) if head else [] for thread, head in heads.items()}
    return done, asked


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--faults", help="only these kinds, with commas", default=",".join(DECK))
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults, about")
    wanted = parser.parse_args()
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # servers that go away are the point
    made = asyncio.run(
        run(
            wanted.seed,
            wanted.minutes * 60,
            workers=wanted.workers,
            deck=wanted.faults.split(","),
            every=wanted.every,
            say=lambda line: print(line, flush=True),  # noqa: T201 - a program
        )
    )
    print(f"\n{made.table()}\n\nthe evidence: {made.folder}")  # noqa: T201 - a program
    (made.folder / "report.json").write_text(json.dumps({"violations": made.violations, "in_vain": made.in_vain}))
    sys.exit(1 if made.violations else 0)


if __name__ == "__main__":
    main()
