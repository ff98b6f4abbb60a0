"""Brings the schema to this code's version; idempotent, safe for ten processes at once, and never in the way for long.

A migration that has to wait for a lock waits for half a second at most, for what comes behind it waits, too; then it
lets everybody pass and tries again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from typing import Final, LiteralString, NamedTuple

from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow

from threadline.contract.keys import DEFAULT_NAMESPACE, Keys
from threadline.errors import BackendUnavailable, NotMigrated
from threadline.ledger.sql import Queries, migrations

__all__ = ["LATEST", "check_migrated", "lock_key", "migrate", "take_lock"]

#: The newest migration that this code knows.
LATEST = migrations()[-1][0]
#: How long one try may stand in the queue for a lock, where every write of a job waits behind it. Half of Postgres'
#: usual deadlock_timeout: in a deadlock it is the migration that gives up, not the job.
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '500ms'"
#: What a migration has locked is free again so long after its process, or the network to it, stands still in between.
_IDLE_TIMEOUT: Final = "SET LOCAL idle_in_transaction_session_timeout = '10s'"
#: How long tries go on.
_PATIENCE_SECONDS: Final = 300.0
#: Another `threadline migrate` is waited for without end; who waits for longer than this is told.
_TELL_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.5
_LAST_PAUSE: Final = 5.0
#: A line of a migration that takes something away: code that knows less than this number cannot use the schema then.
_OLDEST: Final = re.compile(r"^-- oldest: (\d+)$", re.MULTILINE)


def lock_key(name: str) -> int:
    """A signed 64-bit advisory lock key for a name; the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


async def take_lock(
    connection: AsyncConnection[DictRow], key: int, *, on_wait: Callable[[str], None] = lambda _why: None
) -> None:
    """Take a session lock by asking again and again; `on_wait` hears who has it, now and then.

    Waiting inside Postgres would hold a snapshot, and the holder's CREATE INDEX CONCURRENTLY waits for all snapshots.
    """
    tell_at = time.monotonic() + _TELL_SECONDS
    while True:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s) AS taken", (key,))).fetchone()
        if row and row["taken"]:
            return
        if time.monotonic() > tell_at:
            tell_at = time.monotonic() + 6 * _TELL_SECONDS
            on_wait(f"another migration is under way: {await _holder_of(connection, key)}")
        await asyncio.sleep(0.1)


async def _holder_of(connection: AsyncConnection[DictRow], key: int) -> str:
    # The lock is of the database, whatever the schema.
    query = Queries(DEFAULT_NAMESPACE)["lock_holder"]
    row = await (await connection.execute(query, {"key": key})).fetchone()
    return "it has just ended" if row is None else f"process {row['pid']} ({row['name']}, for {row['seconds']:.0f} s)"


async def migrate(
    connection: AsyncConnection[DictRow],
    keys: Keys,
    *,
    on_wait: Callable[[str], None] = lambda _why: None,
    patience: float = _PATIENCE_SECONDS,
) -> list[str]:
    """Apply what is missing, each migration in a transaction of its own under one session lock; the names applied.

    `connection` is in autocommit and reaches Postgres directly or through a session pooler. `on_wait` hears why a
    migration is tried again. Raises BackendUnavailable where the locks were not free for `patience` seconds,
    NotMigrated where the schema is too new for this code; what was applied before stays.
    """
    queries = Queries(keys.schema)
    applied: list[str] = []
    await take_lock(connection, lock_key(f"{keys.schema}:migrate"), on_wait=on_wait)
    try:
        await connection.execute(queries.fill("CREATE SCHEMA IF NOT EXISTS {schema}"))
        await connection.execute(
            queries.fill(
                "CREATE TABLE IF NOT EXISTS {schema}.schema_migrations"
                " (version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        )
        done = await _applied(connection, queries)
        _refuse_newer(done)
        for version, name, text in migrations():
            if version not in done.versions:
                await _apply(connection, queries, (version, name, text), on_wait, patience)
                applied.append(name)
    finally:
        if not connection.closed:  # else the lock went with it, and this would hide why
            await connection.execute("SELECT pg_advisory_unlock(%s)", (lock_key(f"{keys.schema}:migrate"),))
    return applied


async def _apply(
    connection: AsyncConnection[DictRow],
    queries: Queries,
    migration: tuple[int, str, str],
    on_wait: Callable[[str], None],
    patience: float,
) -> None:
    deadline, pause = time.monotonic() + patience, _FIRST_PAUSE
    while True:
        try:
            await _once(connection, queries, *migration)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            why = f"{migration[1]} waits for a lock that {await _holder(connection, queries)} has"
            if time.monotonic() + pause > deadline:
                raise BackendUnavailable(
                    f"{why} for {patience:g} s: end that transaction, and run `threadline migrate` again"
                ) from error
            on_wait(why)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
        else:
            return


async def _once(connection: AsyncConnection[DictRow], queries: Queries, version: int, name: str, text: str) -> None:
    async with connection.transaction():
        await connection.execute(_LOCK_TIMEOUT)
        await connection.execute(_IDLE_TIMEOUT)
        await connection.execute(queries.fill(text), prepare=False)
        await connection.execute(
            queries.fill("INSERT INTO {schema}.schema_migrations (version, name) VALUES (%s, %s)"), (version, name)
        )
        if oldest := _OLDEST.search(text):
            await connection.execute(
                queries.fill("UPDATE {schema}.schema_migrations SET oldest = %s WHERE version = %s"),
                (int(oldest[1]), version),
            )


async def _holder(connection: AsyncConnection[DictRow], queries: Queries) -> str:
    row = await (await connection.execute(queries["migrate_holder"])).fetchone()
    if row is None:
        return "another transaction"
    return f"process {row['pid']} ({row['name']}, {row['state']}, its transaction open for {row['seconds']:.0f} s)"


class _Applied(NamedTuple):
    """What a schema says of itself: its migrations, and the least that code has to know."""

    versions: set[int]
    oldest: int


async def _applied(connection: AsyncConnection[DictRow], queries: Queries) -> _Applied:
    rows = [row async for row in await connection.execute(_versions(queries))]
    return _Applied({row["version"] for row in rows}, max((row["oldest"] for row in rows), default=0))


def _refuse_newer(done: _Applied) -> None:
    if done.oldest > LATEST:
        raise NotMigrated(
            f"the schema is at {max(done.versions)} and serves releases that know {done.oldest} or more;"
            f" this one knows {LATEST}: upgrade this program"
        )


async def check_migrated(connection: AsyncConnection[DictRow], keys: Keys) -> int:
    """The schema's version.

    Raises NotMigrated when it is older than this code, when a migration in between is missing, and when it is so new
    that it says it does not serve this code; any other newer one serves older code, too.
    """
    found = await connection.execute("SELECT to_regclass(%s) AS known", (f"{keys.schema}.schema_migrations",))
    row = await found.fetchone()
    if row is None or row["known"] is None:
        raise NotMigrated("the database has no Threadline schema: run `threadline migrate`")
    done = await _applied(connection, Queries(keys.schema))
    version = max(done.versions, default=0)
    if version < LATEST:
        raise NotMigrated(f"the schema is at {version}, this code needs {LATEST}: run `threadline migrate`")
    if missing := [name for number, name, _text in migrations() if number not in done.versions]:
        raise NotMigrated(f"the schema lacks {', '.join(missing)}: run `threadline migrate`")
    _refuse_newer(done)
    return version


def _versions(queries: Queries) -> LiteralString:
    # `oldest` came with 0010: read so that a schema without it has an answer, too.
    return queries.fill(
        "SELECT version, coalesce((to_jsonb(m) ->> 'oldest')::int, 0) AS oldest FROM {schema}.schema_migrations AS m"
    )
