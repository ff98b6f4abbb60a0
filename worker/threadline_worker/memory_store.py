"""The store of a run carries the same fence as its saver (F2): a stale worker remembers nothing for anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncCursor
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from threadline.ledger.sql import Queries
from threadline_worker.checkpoints import CALL_SECONDS, Fence, fenced

__all__ = ["FencedStore"]


class FencedStore(AsyncPostgresStore):
    """One per run. Reads pass the same check: what a run reads it will act on."""

    def __init__(self, pool: AsyncConnectionPool[Any], fence: Fence, queries: Queries) -> None:
        super().__init__(pool)
        self._fence = fence
        self._check = queries.fill("SELECT {schema}.assert_fence(%s, %s, %s, %s)")

    def stop(self) -> None:
        """End the store's batching task."""
        if self._task is not None:
            self._task.cancel()

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        with fenced():
            async with asyncio.timeout(CALL_SECONDS), super()._cursor(pipeline=pipeline) as cursor:
                yield cursor
                if pipeline:
                    await cursor.execute(self._check, self._fence)
