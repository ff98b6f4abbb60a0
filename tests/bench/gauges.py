"""What the queue's gauges, a scrape and the ledger's other statements take in a ledger with a million ended jobs.

`PYTHONPATH=tests python -m bench.gauges [ENDED]`. One JSON line each. `sequential` counts the scans of whole tables
(jobs, threads, checkpoints and their writes) that a statement caused, from the server's own statistics, so also within
functions and with generic plans; it fails if there is one, or if the gauges take longer than 20 ms. A test runs the
same with 20,000 ended jobs.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry

from bench.figures import milliseconds, say
from support.ledger import Bench
from support.servers import test_servers
from threadline.contract.keys import Keys
from threadline.ledger.custody import Claim
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all
from threadline_worker.telemetry.exposure import ledger_from
from threadline_worker.telemetry.http import HealthServer
from threadline_worker.telemetry.metrics import Metrics, QueueGauges

__all__ = ["GOAL_SECONDS", "Measured", "filled", "scraped", "statements"]

#: The issue's.
GOAL_SECONDS: Final = 0.020
_ENDED: Final = 1_000_000
#: psycopg prepares at once; behind five runs Postgres may take a plan that fits all parameters.
_RUNS: Final = 40
_SCANS: Final = (
    "SELECT coalesce(sum(seq_scan), 0)::int AS n FROM pg_stat_user_tables"
    " WHERE relname IN ('jobs', 'threads', 'checkpoints', 'checkpoint_writes')"
)


class Measured(NamedTuple):
    """Seconds of each run, and the sequential scans of large tables that they caused together."""

    seconds: list[float]
    scans: int

    def figures(self) -> dict[str, Any]:
        """As a line has them."""
        return {**milliseconds(self.seconds), "sequential": self.scans}


@asynccontextmanager
async def filled(database_url: str, ended: int) -> AsyncIterator[Bench]:
    """A migrated ledger with so many ended jobs, and one hundredth, at most 10,000, queued."""
    queued = min(ended // 100, 10_000)
    sizes = {"ended": ended, "queued": queued, "running": queued // 20, "waiting": queued // 5}
    text = (Path(__file__).parent / "million_jobs.sql").read_text(encoding="utf-8")
    # One connection: the figures are of sessions whose plans have settled.
    async with Database(database_url, application_name="bench", max_size=1, limit=900) as database:
        await migrate_all(database, Keys())
        bench = Bench(database)
        async with database.connection() as connection:
            await connection.execute("SET session_replication_role = replica")
            for statement in text.split(";\n"):
                if statement.strip():
                    await connection.execute(statement.encode(), sizes)
            await connection.execute("SET session_replication_role = origin")
            await connection.execute("ANALYZE")
        yield bench


async def statements(bench: Bench) -> dict[str, Measured]:
    """Each of the ledger's statements that runs often, by name."""
    calls = await _calls(bench)
    return {name: await _measured(bench, call) for name, call in calls.items()}


async def _calls(bench: Bench) -> dict[str, Callable[[], Awaitable[Any]]]:
    ledger, run = bench.ledger, bench.run
    queued = [
        row["job_id"]
        for row in await bench.sql(
            "SELECT job_id FROM threadline.jobs WHERE state = 'queued' AND dispatch_n = 1 ORDER BY job_id LIMIT 1000"
        )
    ]
    claims: list[Claim] = []

    async def claim() -> None:
        found = await ledger.claim(queued.pop(), f"w{len(queued) % 50 + 1}")
        assert isinstance(found, Claim), found
        claims.append(found)

    return {
        "gauges": ledger.gauges,
        "enqueue": lambda: bench.enqueue(agent="research"),
        "claim": claim,
        "finish": lambda: ledger.finish(claims.pop(), "succeeded", result={"report": "x" * 2_000}),  # type: ignore[arg-type]  # a State's value
        "dispatch_due": lambda: ledger.dispatch_due(limit=1),
        "dispatch_due_of_thread": lambda: ledger.dispatch_due(thread_id="o1"),
        "dispatched_long_ago": lambda: ledger.dispatched_long_ago(10.0),
        "expire": ledger.expire,
        "enforce_deadlines": lambda: ledger.enforce_deadlines(3600, grace=15),
        "unannounced": lambda: ledger.unannounced(2.0),
        "restore": ledger.restore,
        "orphans": lambda: run("rescue", worker_id=None, limit=3, silent_since=None),
        "observe_workers": lambda: run("observe_workers", worker_id="w1"),
        "beat": lambda: run("beat", worker_id="w1", draining=False),
        "webhook_due": lambda: run("webhook_due"),
        "status": lambda: ledger.snapshot("open-1"),
    }


async def _measured(bench: Bench, call: Callable[[], Awaitable[Any]]) -> Measured:
    await call()
    before, seconds = await _scans(bench), []
    for _ in range(_RUNS):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return Measured(seconds, await _scans(bench) - before)


async def _scans(bench: Bench) -> int:
    await bench.sql("SELECT pg_stat_force_next_flush()")
    await bench.sql("SELECT 1")
    [row] = await bench.sql(_SCANS)
    return int(row["n"])


async def scraped(bench: Bench) -> dict[str, Measured]:
    """A whole scrape over HTTP as a worker serves it: one that asks the ledger, and one that need not."""
    registry = CollectorRegistry()
    services: Any = SimpleNamespace(ledger=bench.ledger)
    Metrics(registry)
    ask = ledger_from(services, asyncio.get_running_loop())
    found = {}
    for name, interval in (("scrape_that_asks", 0.0), ("scrape", 3600.0)):
        gauges = QueueGauges(ask, interval=interval)
        registry.register(gauges)
        server = HealthServer("127.0.0.1", 0, registry, list, list)
        server.start()
        url = f"http://127.0.0.1:{server.port}/metrics"
        found[name] = await _measured(bench, lambda url=url: asyncio.to_thread(_get, url))  # type: ignore[misc]
        await asyncio.to_thread(server.stop)
        registry.unregister(gauges)
    return found


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own
        assert b'threadline_jobs{state="queued"}' in answer.read()


async def _main(ended: int) -> int:
    with test_servers() as urls:
        began = time.monotonic()
        async with filled(urls.database_url, ended) as bench:
            say("gauges", ended=ended, filled_in_seconds=round(time.monotonic() - began))
            found = {**await statements(bench), **await scraped(bench)}
    for name, measured in found.items():
        say("gauges", ended=ended, statement=name, **measured.figures())
    slow = statistics.median(found["gauges"].seconds) > GOAL_SECONDS
    return int(slow or any(measured.scans for measured in found.values()))


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(int(sys.argv[1]) if sys.argv[1:] else _ENDED)))
