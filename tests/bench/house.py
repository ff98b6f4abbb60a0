"""What the benchmarks share: servers of their own, and real workers with default settings."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.servers import test_servers
from support.workers import WorkerHandle, Workers
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all
from threadline_worker.embedded import ServerUrls

__all__ = ["House", "house"]

_TESTS = Path(__file__).parent.parent


class House(NamedTuple):
    """`start()` starts a worker process and waits until it is ready; `env` is what it is given."""

    urls: ServerUrls
    workers: Workers
    env: dict[str, str]

    def start(self) -> WorkerHandle:
        return self.workers.start()


@contextmanager
def house(*, max_connections: int = 300, **env: str) -> Iterator[House]:
    """Servers, migrated; workers get `env` beside the agent `slow`, and are killed at the end."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "THREADLINE_EMBEDDED") if name in os.environ}
    with test_servers(max_connections=max_connections) as urls, tempfile.TemporaryDirectory() as cache:
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
            yield House(urls, workers, own)


async def _migrate(urls: ServerUrls) -> None:
    async with Database(urls.database_url, application_name="bench") as database:
        await migrate_all(database, Keys())
