"""One ledger's threads are kept in one schema: a worker or a migration that would look elsewhere is refused.

Otherwise every thread would look new, and begin again from nothing.
"""

from __future__ import annotations

from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.contract.keys import Keys
from threadline.errors import ConfigurationError, NotMigrated
from threadline.ledger.sql import Queries

__all__ = ["check_checkpoints", "make_room"]

#: LangGraph's tables of checkpoints, as its `setup()` makes them.
_TABLES: Final = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_migrations")


async def check_checkpoints(connection: AsyncConnection[DictRow], keys: Keys) -> None:
    """Raise NotMigrated unless the checkpoints are in the schema of the settings, and there alone."""
    found = await _found(connection, keys)
    if found["there"] and (keys.adopted in {None, keys.schema} or not found["here"]):
        return
    raise NotMigrated(
        f"LangGraph's checkpoints are not {'only ' if found['there'] else ''}in the schema {keys.checkpoints}: "
        "run `threadline migrate`, or set THREADLINE_CHECKPOINT_SCHEMA as it was when that was run"
    )


async def make_room(connection: AsyncConnection[DictRow], keys: Keys) -> None:
    """Before LangGraph's own set-up: raise ConfigurationError where it would hide threads; drop what is empty.

    The migrations have been applied, and the caller holds the lock.
    """
    found = await _found(connection, keys)
    if not found["schema_there"]:
        raise ConfigurationError(
            f"THREADLINE_CHECKPOINT_SCHEMA={keys.checkpoints}: the database has no such schema; name the one that has "
            "the application's table `checkpoints`"
        )
    adopting = keys.adopted not in {None, keys.schema}
    if adopting and found["here"]:
        await _drop_empty(connection, keys)
    if not found["there"] and not (adopting and found["here"]) and found["started"]:
        raise ConfigurationError(
            f"jobs have run here, but the schema {keys.checkpoints} has no checkpoints: "
            "set THREADLINE_CHECKPOINT_SCHEMA as the workers had it"
        )


async def _drop_empty(connection: AsyncConnection[DictRow], keys: Keys) -> None:
    """The tables that a migration without the setting has made."""
    queries = Queries(keys.schema)
    async with connection.transaction():
        for table in _TABLES:
            await connection.execute(queries.fill(f"LOCK TABLE {{schema}}.{table} IN ACCESS EXCLUSIVE MODE"))
        cursor = await connection.execute(queries.fill("SELECT EXISTS (SELECT FROM {schema}.checkpoints) AS filled"))
        row = await cursor.fetchone()
        if row is not None and row["filled"]:
            raise ConfigurationError(
                f"THREADLINE_CHECKPOINT_SCHEMA={keys.checkpoints}: the schema {keys.schema} has threads of its own "
                "already, which would be lost from sight; unset it, or take another THREADLINE_NAMESPACE"
            )
        for table in _TABLES:
            await connection.execute(queries.fill(f"DROP TABLE {{schema}}.{table}"))


async def _found(connection: AsyncConnection[DictRow], keys: Keys) -> DictRow:
    cursor = await connection.execute(Queries(keys.schema, keys.checkpoints)["checkpoint_tables"])
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - it always has one row
    return row
