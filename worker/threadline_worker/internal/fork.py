"""A new thread that begins as another one was: copied in one fenced transaction, once, whoever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.errors import InvalidJob
from threadline_worker.checkpoints import CALL_SECONDS, fenced
from threadline_worker.encrypted_copies import reseal_thread
from threadline_worker.internal.scope import Scope

__all__ = ["fork"]


async def fork(scope: Scope, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`thread_id` and its head, `checkpoint_id`. Raises InvalidJob (unknown checkpoint), LeaseLost, CheckpointsAway."""
    chosen = arguments["checkpoint_id"]
    params = {"source": scope.source, "thread_id": scope.claim.thread_id, "checkpoint_id": chosen}
    with fenced():
        async with asyncio.timeout(CALL_SECONDS), scope.checkpoints.connection() as connection:
            head = await _copied(connection, scope, params)
    if head is None:
        missing = "has no checkpoint yet" if chosen is None else f"has no checkpoint {chosen}"
        raise InvalidJob(f"thread {scope.source} {missing}: `threadline history` lists them")
    return {"thread_id": scope.claim.thread_id, "checkpoint_id": head}


async def _copied(connection: AsyncConnection[DictRow], scope: Scope, params: Mapping[str, Any]) -> str | None:
    async with connection.transaction():
        # So far nothing is locked that anybody else wants: the copy may take as long as the call.
        usual = await _limited(connection, scope, f"{CALL_SECONDS:g}s")
        cursor = await connection.execute(scope.queries["internal_fork"], params)
        row = await cursor.fetchone()
        if row is not None and row["copied"]:
            vault, target = scope.ledger.vault, scope.claim.thread_id
            await reseal_thread(connection, scope.queries, vault, scope.source, target)
        # The fence locks the job's row: a worker that stands still from here on is ended as in any write (F3).
        if usual is not None:
            await _limited(connection, scope, usual)
        await connection.execute(scope.queries["fence"], scope.fence)
    return None if row is None else row["checkpoint_id"]


async def _limited(connection: AsyncConnection[DictRow], scope: Scope, limit: str) -> str | None:
    """Give the transaction so long from now on; what it had. None where the server knows no such limit."""
    row = await (await connection.execute(scope.queries["transaction_limit"], {"limit": limit})).fetchone()
    return None if row is None else str(row["was"])
