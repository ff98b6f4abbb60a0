"""`threadline dev`: both servers and some workers while it runs; a second one in the folder finds the first."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline.settings import ClientSettings
from threadline_worker.backends import migrate_all
from threadline_worker.embedded import ServerUrls, embedded_servers, running_servers
from threadline_worker.local_workers import LocalWorkers
from threadline_worker.memory.index import set_up_index
from threadline_worker.memory.settings import MemorySettings

__all__ = ["DATA_DIR", "interruptible", "run_dev", "worker_env"]

#: Everything that `dev` and `demo` leave behind, in the folder where they are called.
DATA_DIR = Path(".threadline")
_POOLER = ("THREADLINE_DATABASE_DIRECT_URL", "THREADLINE_DATABASE_POOLER")


def run_dev(count: int) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    found = running_servers(DATA_DIR.absolute())
    if found is not None and not (os.environ.get("REDIS_URL") or os.environ.get("DATABASE_URL")):
        click.echo("threadline dev runs in this folder already; its servers are")
        _show(found)
        return
    with interruptible(), embedded_servers(DATA_DIR, on_progress=_say) as urls:
        keys = ClientSettings.from_env().keys
        asyncio.run(prepare(urls, keys))
        _show(urls)
        click.echo(f"{count} worker(s) follow; Ctrl-C stops everything, data stays in {DATA_DIR}/", err=True)
        with LocalWorkers(worker_env(urls)) as workers:
            asyncio.run(_keep(workers, count))


def worker_env(urls: ServerUrls, **more: str) -> dict[str, str]:
    """The environment of a local worker: these servers, the offline model unless one is chosen, any free port."""
    return {
        "THREADLINE_MODEL": "offline",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_CACHE_DIR": str((DATA_DIR / "cache").absolute()),
        # Sealed is sealed, also here.
        **({} if os.environ.get("THREADLINE_ENCRYPTION_KEYS") else {"THREADLINE_LOG_CONTENT": "on"}),
        **os.environ,
        # A way past a pooler leads to another Postgres than the one that is embedded here.
        **({} if os.environ.get("DATABASE_URL") else dict.fromkeys(_POOLER, "")),
        "REDIS_URL": urls.redis_url,
        "DATABASE_URL": urls.database_url,
        **more,
    }


async def prepare(urls: ServerUrls, keys: Keys) -> None:
    """Migrate. Raises BackendUnavailable."""
    async with Database(urls.database_url, application_name="threadline-migrate", limit=60.0) as database:
        await migrate_all(database, keys)
        unindexed = await set_up_index(database, keys, MemorySettings.from_env(), ClientSettings.from_env().vault)
        if unindexed is not None:
            _say(f"memory will be searched without meaning: {unindexed}")


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP leave the block in order, as Ctrl-C does."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _keep(workers: LocalWorkers, count: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, count + 1):
            tasks.create_task(workers.keep(f"worker {number}"))
        if not count:  # the servers alone
            await asyncio.Event().wait()


def _show(urls: ServerUrls) -> None:
    """The two URLs, and a line to paste into another terminal. Stdout, so that `eval` can read the last line."""
    click.echo(f"  Redis     {urls.redis_url}")
    click.echo(f"  Postgres  {urls.database_url}")
    click.echo(f"export REDIS_URL={shlex.quote(urls.redis_url)} DATABASE_URL={shlex.quote(urls.database_url)}")


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)
