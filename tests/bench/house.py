"""What the benchmarks of pick-up share: servers of their own, real workers with default settings, figures as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from support.servers import test_servers
from support.workers import WorkerHandle, Workers
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all
from threadline_worker.embedded import ServerUrls

__all__ = ["House", "house", "say", "seconds"]

_TESTS = Path(__file__).parent.parent


class House(NamedTuple):
    """`start()` starts a worker process and waits until it is ready."""

    urls: ServerUrls
    workers: Workers

    def start(self) -> WorkerHandle:
        return self.workers.start()


@contextmanager
def house(**env: str) -> Iterator[House]:
    """Servers, migrated; workers get `env` beside the agent `slow`, and are killed at the end."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "THREADLINE_EMBEDDED") if name in os.environ}
    with test_servers() as urls, tempfile.TemporaryDirectory() as cache:
        asyncio.run(_migrate(urls))
        own = {
            **keep,
            "REDIS_URL": urls.redis_url,
            "DATABASE_URL": urls.database_url,
            "PYTHONPATH": str(_TESTS),
            "THREADLINE_AGENTS": "slow=bench.slow_graph:slow",
            "THREADLINE_MODEL": "offline",
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
            "THREADLINE_CACHE_DIR": cache,
            **env,
        }
        with Workers(own) as workers:
            yield House(urls, workers)


async def _migrate(urls: ServerUrls) -> None:
    async with Database(urls.database_url, application_name="bench") as database:
        await migrate_all(database, Keys())


def seconds(values: Sequence[float]) -> dict[str, float | int]:
    """n, p50, p95 and the most, in seconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [*values] * 99
    return {"n": len(values), "p50": round(cuts[49], 3), "p95": round(cuts[94], 3), "max": round(max(values), 3)}


def say(bench: str, **figures: Any) -> None:
    """One line for who collects them."""
    print(json.dumps({"bench": bench, **figures}), flush=True)  # noqa: T201 - its output
