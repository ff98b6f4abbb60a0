"""Deletes what has expired and indexes what has no vector; one worker at a time does, held by a lock in Postgres.

The lock belongs to the session that does the work: if that worker dies or is cut off, Postgres frees it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, LiteralString

import psycopg
import structlog
from langchain_core.embeddings import Embeddings
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable
from threadline.ledger.database import Database
from threadline.ledger.migrate import lock_key
from threadline.ledger.sql import Queries
from threadline.redis_client import reason
from threadline_worker.memory.embeddings import MAX_CHARS
from threadline_worker.memory_store import EMBED_SECONDS, StoreConfig

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Keeper", "keeper_of"]

log = structlog.get_logger(__name__)

_EXPIRED_BATCH = 500
_INDEX_BATCH = 64


class Keeper:
    """`run()` until it is cancelled; `round()` is one look. `database` is direct, with `search_path` set."""

    def __init__(self, database: Database, keys: Keys, config: StoreConfig, *, interval: float) -> None:
        self._database = database
        self._queries = Queries(keys.schema)
        self._lock = lock_key(f"{keys.schema}:store")
        self._config = config
        self._interval = interval

    async def run(self) -> None:
        """Look every `interval` seconds until cancelled."""
        while True:
            try:
                await self.round()
            except (psycopg.Error, BackendUnavailable, TimeoutError, OSError) as error:
                log.warning("store.sweep_failed", error=reason(error))
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.1))  # noqa: S311 - spreads workers

    async def round(self) -> tuple[int, int] | None:
        """Items deleted and indexed; None if another worker is at it. Raises BackendUnavailable, psycopg.Error."""
        async with self._alone() as connection:
            if connection is None:
                return None
            deleted = await self._expire(connection)
            indexed = await self._index(connection)
        if deleted or indexed:
            log.info("store.swept", deleted=deleted, indexed=indexed)
        return deleted, indexed

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection[DictRow] | None]:
        """A connection of our own that holds the lock until it is closed; None if another one has it."""
        connection = await self._database.connect()
        try:
            found = await connection.execute("SELECT pg_try_advisory_lock(%s) AS taken", (self._lock,))
            row = await found.fetchone()
            yield connection if row and row["taken"] else None
        finally:
            # Not close(): after an outage it could wait for an answer.
            connection.pgconn.finish()

    async def _expire(self, connection: AsyncConnection[DictRow]) -> int:
        deleted = 0
        while True:
            cursor = await self._execute(connection, "expire", {"limit": _EXPIRED_BATCH})
            deleted += cursor.rowcount
            if cursor.rowcount < _EXPIRED_BATCH:
                return deleted

    async def _index(self, connection: AsyncConnection[DictRow]) -> int:
        model = self._config.index and self._config.index["embed"]
        indexed, changed = 0, list[str]()
        while isinstance(model, Embeddings):
            cursor = await self._execute(connection, "unindexed", {"limit": _INDEX_BATCH, "skip": changed})
            rows = await cursor.fetchall()
            vectors = await _embed(model, [row["content"][:MAX_CHARS] for row in rows])
            for row, vector in zip(rows, vectors, strict=False):
                made = await self._execute(connection, "vector", {**row, "vector": vector})
                indexed += made.rowcount
                if not made.rowcount:  # changed meanwhile: its writer indexes it, or the next round
                    changed.append(f"{row['prefix']}/{row['key']}")
            if len(vectors) < _INDEX_BATCH:
                break
        return indexed

    async def _execute(
        self, connection: AsyncConnection[DictRow], name: str, parameters: dict[str, object]
    ) -> psycopg.AsyncCursor[DictRow]:
        async with asyncio.timeout(self._database.limit):
            return await connection.execute(_statement(self._queries, name), parameters)


def keeper_of(services: Services) -> Keeper:
    """The keeper of a worker, with connections of its own: its lock is its session's."""
    settings = services.settings
    direct = Database(
        settings.direct_url,
        application_name=services.liveness.application_name,
        transaction_timeout=settings.transaction_timeout,
        options=f"-c search_path={services.keys.schema},public",
    )
    return Keeper(direct, services.keys, services.store, interval=settings.memory.sweep_seconds)


async def _embed(model: Embeddings, texts: list[str]) -> list[list[float]]:
    """Vectors of the texts; none if the service does not answer, so that the next round tries again."""
    if not texts:
        return []
    try:
        async with asyncio.timeout(EMBED_SECONDS):
            return await model.aembed_documents(texts)
    except Exception as error:  # noqa: BLE001 - the boundary to anyone's service, whose errors have no common root
        log.warning("store.embedding_failed", error=type(error).__name__, says=str(error), texts=len(texts))
        return []


def _statement(queries: Queries, name: str) -> LiteralString:
    return queries.fill(_read(name))


@cache
def _read(name: str) -> str:
    return (files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
