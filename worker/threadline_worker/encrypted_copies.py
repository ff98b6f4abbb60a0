"""A thread's rows that were copied to another thread are sealed anew for it, in the copy's own transaction."""

from __future__ import annotations

from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from threadline.encryption.vault import Vault
from threadline.ledger.sql import Queries
from threadline_worker.encrypted_checkpoints import (
    moved_metadata,
    opened_value,
    opened_write,
    sealed_value,
    sealed_write,
)

__all__ = ["reseal_thread"]

#: Rows in memory at once; one may hold a whole conversation.
_BATCH: Final = 50


async def reseal_thread(
    connection: AsyncConnection[DictRow], queries: Queries, vault: Vault, source: str, target: str
) -> None:
    """What was copied from thread `source` to `target`. Raises CannotDecrypt, psycopg's errors."""
    if not vault.on:
        return
    for kind in ("checkpoints", "blobs", "writes"):
        async with connection.cursor(name=f"reseal_{kind}") as cursor:
            await cursor.execute(queries[f"reseal_{kind}"], {"thread_id": target})
            while rows := await cursor.fetchmany(_BATCH):
                changed = [{**row, **_moved(kind, vault, row, source, target), "thread_id": target} for row in rows]
                async with connection.cursor() as writing:
                    await writing.executemany(queries[f"resealed_{kind}"], changed)


def _moved(kind: str, vault: Vault, row: DictRow, source: str, target: str) -> dict[str, Any]:
    namespace = row["checkpoint_ns"]
    match kind:
        case "checkpoints":
            return {"metadata": Jsonb(moved_metadata(vault, row, source, target))}
        case "blobs":
            value = (namespace, row["channel"], row["version"])
            type_, blob = sealed_value(
                vault, (target, *value), *opened_value(vault, (source, *value), row["type"], row["blob"])
            )
        case _:
            write = (namespace, row["checkpoint_id"], row["task_id"], row["idx"], row["channel"])
            type_, blob = sealed_write(
                vault, (target, *write), *opened_write(vault, (source, *write), row["type"], row["blob"])
            )
    return {"type": type_, "blob": blob}
