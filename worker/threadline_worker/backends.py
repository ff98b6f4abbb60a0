"""Both servers at the start: waited for with a line a try, and left in an orderly way at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow

from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable, ConfigurationError, NotMigrated
from threadline.ledger.database import Database, refused
from threadline.ledger.migrate import LATEST, check_migrated, lock_key, migrate, take_lock
from threadline.ledger.sql import Queries
from threadline.redis_client import CLUSTER, REDIS_ERRORS, is_cluster
from threadline.redis_client import refused as refused_by_redis
from threadline_worker.checkpoint_schema import check_checkpoints, make_room
from threadline_worker.rights import check_encoding, check_postgres, check_redis

__all__ = ["migrate_all", "wait_for_servers"]

log = structlog.get_logger(__name__)

#: How long a worker waits for its servers at the start before it gives up with exit code 4.
START_SECONDS = 30.0


async def wait_for_servers(
    redis: Any, database: Database, keys: Keys, *, queue: str | None = None, limit: float = START_SECONDS
) -> None:
    """Return once Redis answers and Postgres is migrated.

    Raises BackendUnavailable after `limit` s, at once where waiting does not help (a password, a right, a certificate),
    NotMigrated, and ConfigurationError for a Redis Cluster.
    """
    deadline = time.monotonic() + limit
    delay = 0.25
    while True:
        try:
            version = await _check(redis, database, keys, queue or keys.queue)
        except NotMigrated:
            raise
        except BackendUnavailable as error:
            if not error.passing or time.monotonic() + delay > deadline:
                raise
            log.warning("worker.waiting_for", error=str(error), next_try_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)
        else:
            if version > LATEST:
                log.info("worker.configuration", schema=version, known=LATEST, problem="a newer release has migrated")
            return


async def _check(redis: Any, database: Database, keys: Keys, queue: str) -> int:
    """The schema's version."""
    try:
        if await is_cluster(redis):
            raise ConfigurationError(CLUSTER)
        await check_redis(redis, keys, queue)
    except REDIS_ERRORS as error:
        raise refused_by_redis(error) from error
    async with database.connection() as connection:
        version = await check_migrated(connection, keys)
        await check_checkpoints(connection, keys)
        if (refusal := await check_postgres(connection, Queries(keys.schema, keys.checkpoints))) is not None:
            raise BackendUnavailable(refusal, passing=False)
    return version


async def migrate_all(
    database: Database, keys: Keys, *, on_wait: Callable[[str], None] = lambda _why: None
) -> list[str]:
    """The ledger's migrations and LangGraph's own set-up, under one lock; what was applied.

    Safe when several run at once: LangGraph's `setup()` alone is not (findings.md). `on_wait` hears of locks that
    are waited for. Raises BackendUnavailable, NotMigrated for a schema that is too new.
    """
    async with await database.connect() as connection:
        await check_encoding(connection)
        try:
            applied = await migrate(connection, keys, on_wait=on_wait)
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
            said = str(error).partition("\n")[0]
            raise BackendUnavailable(
                f"Postgres: {said}: migrate as the role that owns schema {keys.schema}, on the primary"
            ) from error
        except (errors.OperationalError, errors.InterfaceError, errors.IdleInTransactionSessionTimeout) as error:
            raise refused(error) from error
        try:
            await take_lock(connection, lock_key(f"{keys.schema}:langgraph"), on_wait=on_wait)
            await make_room(connection, keys)
            await _look_in(connection, keys.checkpoints)
            saver: AsyncPostgresSaver = AsyncPostgresSaver(connection)
            await saver.setup()
            await _look_in(connection, keys.schema)
            await _set_up_store(connection)
        except psycopg.Error as error:
            raise BackendUnavailable(f"LangGraph's tables could not be set up: {refused(error)}") from error
    return applied


async def _look_in(connection: AsyncConnection[DictRow], schema: str) -> None:
    await connection.execute("SELECT set_config('search_path', %s, false)", (f"{schema}, public",))


async def _set_up_store(connection: AsyncConnection[DictRow]) -> None:
    store = AsyncPostgresStore(connection)
    await store.setup()
    if store._task is not None:  # noqa: SLF001 - the store has no public end
        store._task.cancel()  # noqa: SLF001
