"""Brings the schema to this code's version; idempotent, and safe when ten processes do it at once."""

from __future__ import annotations

import hashlib
from typing import LiteralString, cast

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.contract.keys import Keys
from threadline.errors import NotMigrated
from threadline.ledger.sql import Queries, migrations

__all__ = ["LATEST", "check_migrated", "lock_key", "migrate"]

#: The newest migration that this code knows.
LATEST = migrations()[-1][0]


def lock_key(name: str) -> int:
    """A signed 64-bit advisory lock key for a name; the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


async def migrate(connection: AsyncConnection[DictRow], keys: Keys) -> list[str]:
    """Apply what is missing, each migration in a transaction of its own under one session lock.

    `connection` is in autocommit and reaches Postgres directly or through a session pooler. Returns the names applied.
    """
    queries = Queries(keys.schema)
    applied: list[str] = []
    await connection.execute("SELECT pg_advisory_lock(%s)", (lock_key(f"{keys.schema}:migrate"),))
    try:
        await connection.execute(queries.fill("CREATE SCHEMA IF NOT EXISTS {schema}"))
        await connection.execute(
            queries.fill(
                "CREATE TABLE IF NOT EXISTS {schema}.schema_migrations"
                " (version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        )
        done = {row["version"] async for row in await connection.execute(_versions(queries))}
        for version, name, text in migrations():
            if version in done:
                continue
            async with connection.transaction():
                await connection.execute(queries.fill(text), prepare=False)
                await connection.execute(
                    queries.fill("INSERT INTO {schema}.schema_migrations (version, name) VALUES (%s, %s)"),
                    (version, name),
                )
            applied.append(name)
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (lock_key(f"{keys.schema}:migrate"),))
    return applied


async def check_migrated(connection: AsyncConnection[DictRow], keys: Keys) -> int:
    """The schema's version. Raises NotMigrated when it is older than this code; a newer one serves older code, too."""
    found = await connection.execute("SELECT to_regclass(%s) AS known", (f"{keys.schema}.schema_migrations",))
    row = await found.fetchone()
    if row is None or row["known"] is None:
        raise NotMigrated("the database has no Threadline schema: run `threadline migrate`")
    versions = [row["version"] async for row in await connection.execute(_versions(Queries(keys.schema)))]
    version = max(versions, default=0)
    if version < LATEST:
        raise NotMigrated(f"the schema is at {version}, this code needs {LATEST}: run `threadline migrate`")
    return cast("int", version)


def _versions(queries: Queries) -> LiteralString:
    return queries.fill("SELECT version FROM {schema}.schema_migrations")
