"""The store of a run carries the same fence as its saver (F2): a stale worker remembers nothing for anybody.

What has expired is read by nobody, swept or not. An embedding service that is away costs the search, never a memory:
the item is kept, and indexed later by the keeper (memory/keeper.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import structlog
from langchain_core.embeddings import Embeddings
from langgraph.store.base import Op, PutOp, Result, SearchItem, SearchOp, TTLConfig
from langgraph.store.postgres.base import PostgresIndexConfig
from psycopg import AsyncCursor, errors
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from threadline.encryption.vault import PLAIN, Vault
from threadline.ledger.sql import Queries
from threadline_worker.checkpoints import CALL_SECONDS, Fence, fenced
from threadline_worker.encrypted_store import SealingStore
from threadline_worker.memory.embeddings import MAX_CHARS
from threadline_worker.memory.moves import Moves, move_statement

__all__ = ["FencedStore", "MemoryStore", "StoreConfig"]

log = structlog.get_logger(__name__)

#: How long a write of an agent waits for the embedding service before it does without.
EMBED_SECONDS = 20.0
_PAGE = 200
#: The index is not as we found it at the start: dropped, or made anew with another number of dimensions.
_INDEX_GONE = (errors.DataException, errors.UndefinedTable, errors.UndefinedObject, errors.UndefinedFunction)


class StoreConfig:
    """How stores of this process are opened. `index` becomes None, with one line in the log, when it is of no use."""

    def __init__(
        self,
        *,
        index: PostgresIndexConfig | None = None,
        ttl_minutes: int | None = None,
        ttl_refresh: bool = False,
        vault: Vault = PLAIN,
    ) -> None:
        self.index = index
        self.vault = vault
        # Also without a TTL: items of another time, or of an agent's own, may have one.
        self.ttl: TTLConfig = {"default_ttl": ttl_minutes, "refresh_on_read": ttl_refresh, "omit_expired": True}

    def without_index(self, why: str) -> None:
        """From now on, search by text finds the newest instead of the nearest."""
        if self.index is not None:
            log.warning("store.unindexed", why=why)
        self.index = None


class MemoryStore(SealingStore):
    """Not fenced: for the keeper and for `threadline memory`."""

    def __init__(self, pool: AsyncConnectionPool[Any], config: StoreConfig | None = None) -> None:
        self._config = config or StoreConfig()
        index = self._config.index
        if index is not None:
            index = {**index, "embed": _Prepared()}
        super().__init__(pool, vault=self._config.vault, index=index, ttl=self._config.ttl)

    def stop(self) -> None:
        """End the store's batching task."""
        if self._task is not None:
            self._task.cancel()

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Embed first, without a connection in the hand; then all of it in one transaction."""
        given = list(ops)
        model = self._config.index and self._config.index["embed"]
        if self.index_config is None or not isinstance(model, Embeddings):
            return await super().abatch([_plain(op) for op in given])
        wanted = [_indexed(op) for op in given]
        vectors = await _embedded(model, self._texts(wanted))
        if vectors is None:
            return await super().abatch([_plain(op) for op in given])
        token = _vectors.set(vectors)
        try:
            return await super().abatch(wanted)
        except _INDEX_GONE as error:
            result = await super().abatch([_plain(op) for op in given])  # raises again if the items are to blame
            self._config.without_index(" ".join(str(error).split()))
            return result
        finally:
            _vectors.reset(token)

    async def move(self, moves: Moves, queries: Queries) -> None:
        """Bring what stands under earlier names of users to today's, in one transaction."""
        if not moves:
            return
        if self._config.vault.on:  # what is sealed opens at its own place only
            await self.abatch(await self._moving(moves))
            return
        async with self._cursor(pipeline=True) as cursor:
            await cursor.execute(move_statement(queries), moves.parameters)

    async def _moving(self, moves: Moves) -> list[Op]:
        newest: dict[tuple[tuple[str, ...], str], SearchItem] = {}
        gone: list[Op] = []
        for old, new in moves.namespaces:
            items = await self._all(old)
            gone += [PutOp(old, item.key, None) for item in items]
            for item in [*(await self._all(new) if items else ()), *items]:
                known = newest.get((new, item.key))
                if known is None or known.updated_at < item.updated_at:
                    newest[new, item.key] = item
        moved = [(*place, item) for place, item in newest.items() if item.namespace != place[0]]
        return [*gone, *(PutOp(namespace, key, item.value) for namespace, key, item in moved)]

    async def _all(self, namespace: tuple[str, ...]) -> list[SearchItem]:
        found: list[SearchItem] = []
        while True:
            page = await self.asearch(namespace, limit=_PAGE, offset=len(found))
            found += page
            if len(page) < _PAGE:
                return [item for item in found if item.namespace == namespace]

    def _texts(self, ops: Sequence[Op]) -> list[str]:
        puts = [(place, op) for place, op in enumerate(ops) if isinstance(op, PutOp)]
        _, request = self._prepare_batch_PUT_queries(puts)
        texts = [parameters[-1] for parameters in request[1]] if request else []
        texts += [op.query for op in ops if isinstance(op, SearchOp) and op.query]
        return list(dict.fromkeys(texts))


class FencedStore(MemoryStore):
    """One per run. Reads pass the same check: what a run reads it will act on."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], fence: Fence, queries: Queries, config: StoreConfig | None = None
    ) -> None:
        super().__init__(pool, config)
        self._fence = fence
        self._check = queries.fill("SELECT {schema}.assert_fence(%s, %s, %s, %s)")

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        with fenced():
            async with asyncio.timeout(CALL_SECONDS), super()._cursor(pipeline=pipeline) as cursor:
                yield cursor
                if pipeline:
                    await cursor.execute(self._check, self._fence)


#: The vectors of the batch under way, by text.
_vectors: ContextVar[Mapping[str, list[float]]] = ContextVar("vectors")


class _Prepared(Embeddings):
    """LangGraph asks for vectors inside its transaction; by then they are there."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        known = _vectors.get()
        return [known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)


async def _embedded(model: Embeddings, texts: list[str]) -> Mapping[str, list[float]] | None:
    if not texts:
        return {}
    try:
        async with asyncio.timeout(EMBED_SECONDS):
            made = await model.aembed_documents([text[:MAX_CHARS] for text in texts])
    except Exception as error:  # noqa: BLE001 - the boundary to anyone's service, whose errors have no common root
        log.warning("store.embedding_failed", error=type(error).__name__, says=str(error), texts=len(texts))
        return None
    return dict(zip(texts, made, strict=True))


def _indexed(op: Op) -> Op:
    """A file is searched by its text alone: not by its dates, and not at all if it is binary or blank."""
    if not isinstance(op, PutOp) or op.value is None or op.index is not None or "encoding" not in op.value:
        return op
    content = op.value.get("content")
    text = op.value["encoding"] == "utf-8" and isinstance(content, str) and content.strip()
    return op._replace(index=["content"] if text else False)


def _plain(op: Op) -> Op:
    if isinstance(op, PutOp):
        return op._replace(index=False)
    return op._replace(query=None) if isinstance(op, SearchOp) else op
