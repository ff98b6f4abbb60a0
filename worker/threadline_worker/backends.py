"""Both servers at the start: waited for with a line a try, and left in an orderly way at the end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import structlog
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable, ConfigurationError, NotMigrated
from threadline.ledger.database import Database
from threadline.ledger.migrate import check_migrated, lock_key, migrate
from threadline.redis_client import CLUSTER, REDIS_ERRORS, is_cluster, reason
from threadline_worker.checkpoint_schema import check_checkpoints, make_room

__all__ = ["migrate_all", "wait_for_servers"]

log = structlog.get_logger(__name__)

#: How long a worker waits for its servers at the start before it gives up with exit code 4.
START_SECONDS = 30.0


async def wait_for_servers(redis: Any, database: Database, keys: Keys, *, limit: float = START_SECONDS) -> None:
    """Return once Redis answers and Postgres is migrated.

    Raises BackendUnavailable after `limit` s, NotMigrated, and ConfigurationError for a Redis Cluster.
    """
    deadline = time.monotonic() + limit
    delay = 0.25
    while True:
        try:
            await _check(redis, database, keys)
        except NotMigrated:
            raise
        except BackendUnavailable as error:
            if time.monotonic() + delay > deadline:
                raise
            log.warning("worker.waiting_for", error=str(error), next_try_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)
        else:
            return


async def _check(redis: Any, database: Database, keys: Keys) -> None:
    try:
        await redis.ping()
        clustered = await is_cluster(redis)
    except REDIS_ERRORS as error:
        raise BackendUnavailable(f"Redis: {reason(error)}") from error
    if clustered:
        raise ConfigurationError(CLUSTER)
    async with database.connection() as connection:
        await check_migrated(connection, keys)
        await check_checkpoints(connection, keys)


async def migrate_all(database: Database, keys: Keys) -> list[str]:
    """The ledger's migrations and LangGraph's own set-up, under one lock; what was applied.

    Safe when several run at once: LangGraph's `setup()` alone is not (findings.md).
    """
    async with await database.connect() as connection:
        applied = await migrate(connection, keys)
        try:
            await _lock(connection, lock_key(f"{keys.schema}:langgraph"))
            await make_room(connection, keys)
            await _look_in(connection, keys.checkpoints)
            saver: AsyncPostgresSaver = AsyncPostgresSaver(connection)
            await saver.setup()
            await _look_in(connection, keys.schema)
            await _set_up_store(connection)
        except psycopg.Error as error:
            raise BackendUnavailable(f"LangGraph's tables could not be set up: {error}") from error
    return applied


async def _lock(connection: AsyncConnection[DictRow], key: int) -> None:
    """Take a session lock by asking again and again.

    Waiting inside Postgres would hold a snapshot, and the holder's CREATE INDEX CONCURRENTLY waits for all snapshots.
    """
    while True:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s) AS taken", (key,))).fetchone()
        if row and row["taken"]:
            return
        await asyncio.sleep(0.1)


async def _look_in(connection: AsyncConnection[DictRow], schema: str) -> None:
    await connection.execute("SELECT set_config('search_path', %s, false)", (f"{schema}, public",))


async def _set_up_store(connection: AsyncConnection[DictRow]) -> None:
    store = AsyncPostgresStore(connection)
    await store.setup()
    if store._task is not None:  # noqa: SLF001 - the store has no public end
        store._task.cancel()  # noqa: SLF001
