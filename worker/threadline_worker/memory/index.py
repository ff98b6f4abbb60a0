"""The index for semantic search: made by `threadline migrate`, used by workers if it fits their model, else said once.

There is no approximate index (HNSW, IVFFlat): those look for the nearest of all users and filter afterwards, so that a
user with few memories finds none of them. Within one namespace, exact search is quick and complete.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import structlog
from langchain_core.embeddings import Embeddings
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.postgres.base import PostgresIndexConfig
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow

from threadline.contract.keys import Keys
from threadline.encryption.vault import Vault
from threadline.ledger.database import Database
from threadline.ledger.migrate import lock_key
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.memory.embeddings import OFFLINE, resolve_embeddings
from threadline_worker.memory.settings import MemorySettings
from threadline_worker.memory_store import StoreConfig

__all__ = ["drop_index", "open_store", "set_up_index", "store_config"]

log = structlog.get_logger(__name__)

_SEALED = "with THREADLINE_ENCRYPTION_KEYS there is no index: a vector tells what its text is about"
_REBUILD = "`threadline memory index --rebuild` makes it anew"


class _ExactStore(AsyncPostgresStore):
    #: The extension and the table; the third one is the approximate index.
    VECTOR_MIGRATIONS = AsyncPostgresStore.VECTOR_MIGRATIONS[:2]


async def store_config(
    database: Database, keys: Keys, settings: MemorySettings, vault: Vault
) -> tuple[StoreConfig, str | None]:
    """How to open stores, and why there is no semantic search although it is configured. Raises BackendUnavailable."""
    index: PostgresIndexConfig | None = None
    why: str | None = None
    if settings.embeddings:
        try:
            index = await _usable(database, keys, settings, vault)
        except AgentConfigError as error:
            why = str(error)
    return StoreConfig(
        index=index, vault=vault, ttl_minutes=settings.ttl_minutes, ttl_refresh=settings.ttl_refresh
    ), why


async def open_store(database: Database, keys: Keys, settings: MemorySettings, vault: Vault) -> StoreConfig:
    """The same for a worker, which says once if search by meaning is configured and cannot be had."""
    config, why = await store_config(database, keys, settings, vault)
    if why is not None:
        log.warning("store.unindexed", why=why)
    return config


async def set_up_index(database: Database, keys: Keys, settings: MemorySettings, vault: Vault) -> str | None:
    """Make the index if it is configured and missing; safe for several at once. Why there is none, None if all is well.

    Raises BackendUnavailable.
    """
    if not settings.embeddings:
        return None
    if vault.on:
        return _SEALED
    try:
        async with await database.connect() as connection:
            # The number of dimensions may have to be asked from the model: before anything is locked.
            if await _mark(connection, keys) is None:
                model, dims = await _model(settings, settings.dims)
                await _make(connection, keys, settings, model, dims)
        await _usable(database, keys, settings, vault)
    except AgentConfigError as error:
        return str(error)
    return None


async def drop_index(database: Database, keys: Keys) -> None:
    """Forget all vectors; the items stay. Raises BackendUnavailable."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('search_path', %s, true)", (f"{keys.schema}, public",))
        await connection.execute("DROP TABLE IF EXISTS store_vectors")
        known = await (await connection.execute("SELECT to_regclass('vector_migrations') AS t")).fetchone()
        if known and known["t"]:
            await connection.execute("DELETE FROM vector_migrations WHERE v > 0")


async def _make(
    connection: AsyncConnection[DictRow], keys: Keys, settings: MemorySettings, model: Embeddings, dims: int
) -> None:
    config = _index(model, dims)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(f"{keys.schema}:langgraph"),))
            await connection.execute("SELECT set_config('search_path', %s, true)", (f"{keys.schema}, public",))
            # In `public`, so that every namespace of this database finds its type.
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            store = _ExactStore(connection, index=config)
            try:
                await store.setup()
            finally:
                if store._task is not None:  # noqa: SLF001 - the store has no public end
                    store._task.cancel()  # noqa: SLF001
            mark = sql.Literal(json.dumps({"model": settings.embeddings, "dims": dims}))
            await connection.execute(sql.SQL("COMMENT ON TABLE store_vectors IS {}").format(mark))
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise AgentConfigError(
            f"pgvector cannot be used ({reason}): install it, let an administrator run CREATE EXTENSION vector, then"
            " run `threadline migrate` again"
        ) from error


async def _usable(database: Database, keys: Keys, settings: MemorySettings, vault: Vault) -> PostgresIndexConfig:
    if vault.on:
        raise AgentConfigError(_SEALED)
    async with database.connection() as connection:
        mark = await _mark(connection, keys)
    if mark is None:
        raise AgentConfigError("there is no index yet: run `threadline migrate` with THREADLINE_STORE_EMBEDDINGS set")
    made_with, dims = mark
    if made_with != settings.embeddings or (settings.dims and settings.dims != dims):
        raise AgentConfigError(f"the index was made with {made_with} and {dims} dimensions: {_REBUILD}")
    model, _ = await _model(settings, dims)
    return _index(model, dims)


async def _mark(connection: AsyncConnection[DictRow], keys: Keys) -> tuple[str, int] | None:
    """Model and dimensions of the index, which its table's comment holds; None without an index."""
    found = await connection.execute(
        "SELECT obj_description(t) AS mark FROM to_regclass(%s) AS t WHERE t IS NOT NULL",
        (f"{keys.schema}.store_vectors",),
    )
    row = await found.fetchone()
    if row is None:
        return None
    try:
        mark = json.loads(row["mark"] or "{}")
        return str(mark["model"]), int(mark["dims"])
    except (ValueError, KeyError, TypeError):
        return ("another program", 0)


async def _model(settings: MemorySettings, dims: int | None) -> tuple[Embeddings, int]:
    asked = dims if settings.dims or settings.embeddings == OFFLINE else None
    model = await asyncio.to_thread(resolve_embeddings, settings.embeddings, asked)
    return model, dims or len(await _asked(model, settings.embeddings))


async def _asked(model: Embeddings, spec: str) -> list[float]:
    try:
        return await model.aembed_query("How many dimensions?")
    except Exception as error:  # the boundary to anyone's service, whose errors have no common root
        reason = " ".join(str(error).split())[:400]
        raise AgentConfigError(
            f"THREADLINE_STORE_EMBEDDINGS={spec} did not answer ({reason}): set THREADLINE_STORE_EMBEDDING_DIMS, or"
            " try again"
        ) from error


def _index(model: Any, dims: int) -> PostgresIndexConfig:
    return {
        "dims": dims,
        "embed": model,
        "fields": ["$"],
        "distance_type": "cosine",
        "ann_index_config": {"kind": "flat", "vector_type": "vector"},
    }
