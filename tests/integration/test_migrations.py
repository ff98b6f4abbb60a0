"""Migrating twice, or ten at once, is migrating once; an older schema says what to do, a newer one serves old code."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from support.ledger import Bench, request
from threadline import Client, NotMigrated
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline.ledger.migrate import LATEST, check_migrated, lock_key, migrate
from threadline.ledger.sql import Queries, migrations
from threadline_worker.backends import migrate_all

KEYS = Keys()


async def objects(connection: AsyncConnection[DictRow], schema: str) -> list[tuple[str, str]]:
    """Every table, index and function of a schema, with its definition."""
    cursor = await connection.execute(
        "SELECT relname AS name, coalesce(pg_get_indexdef(c.oid), relkind::text) AS form FROM pg_class AS c"
        " WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'i', 'S')"
        " UNION ALL SELECT proname, pg_get_functiondef(p.oid) FROM pg_proc AS p"
        " WHERE pronamespace = %(schema)s::regnamespace ORDER BY 1, 2",
        {"schema": schema},
    )
    return [(row["name"], row["form"]) for row in await cursor.fetchall()]


async def test_ten_at_once_migrate_once(empty_database_url: str) -> None:
    async def one() -> None:
        async with Database(empty_database_url, application_name="tests", limit=60) as database:
            await migrate_all(database, KEYS)

    await asyncio.gather(*(one() for _ in range(10)))
    async with Database(empty_database_url, application_name="tests") as database:
        versions = await database.rows("SELECT version FROM threadline.schema_migrations ORDER BY 1")
        assert [row["version"] for row in versions] == [version for version, _, _ in migrations()]
        held = await database.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")
        assert held == []
        asked = request()
        ledger = Bench(database).ledger
        assert (await ledger.enqueue(asked, fingerprint="f", dispatching=False)).created


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    async with Database(database_url, application_name="tests") as database, database.connection() as connection:
        before = await objects(connection, "threadline")
        assert "jobs_one_running" in dict(before)
        assert await migrate(connection, KEYS) == []
        assert await objects(connection, "threadline") == before
        assert await check_migrated(connection, KEYS) == LATEST


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("broken.sql", "; SELECT 1 / 0", "division by zero"), (None, "", 'null value in column "name"')],
)
async def test_a_migration_that_fails_leaves_no_trace_and_no_lock(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, name: str | None, text: str, says: str
) -> None:
    broken = [*migrations(), (LATEST + 1, name, "CREATE TABLE {schema}.half ()" + text)]
    async with Database(empty_database_url, application_name="tests") as database:
        with monkeypatch.context() as patched:
            patched.setattr("threadline.ledger.migrate.migrations", lambda: broken)
            async with await database.connect() as connection:
                with pytest.raises(Exception, match=says):
                    await migrate(connection, KEYS)
                cursor = await connection.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")
                assert await cursor.fetchall() == []
        async with database.connection() as connection:
            assert await check_migrated(connection, KEYS) == LATEST
            assert "half" not in dict(await objects(connection, "threadline"))


async def test_two_namespaces_share_a_database(database_url: str) -> None:
    staging = Keys("staging")
    async with Database(database_url, application_name="tests") as database, database.connection() as connection:
        with pytest.raises(NotMigrated, match="run `threadline migrate`"):
            await check_migrated(connection, staging)
        assert await migrate(connection, staging) == [name for _, name, _ in migrations()]
        ours, theirs = await objects(connection, "threadline"), await objects(connection, "staging")
        own = {name for name, _ in theirs}
        assert own <= {name for name, _ in ours}
        assert all("threadline." not in form for _, form in theirs)


async def test_an_empty_database_says_what_to_run(empty_database_url: str, redis_url: str) -> None:
    async with Database(empty_database_url, application_name="tests") as database, database.connection() as connection:
        with pytest.raises(NotMigrated, match="the database has no Threadline schema: run `threadline migrate`"):
            await check_migrated(connection, KEYS)
    async with Client(redis_url=redis_url, database_url=empty_database_url) as client:
        with pytest.raises(NotMigrated, match="no current Threadline schema: run `threadline migrate`"):
            await client.enqueue("research", "What?")
        with pytest.raises(NotMigrated):
            await client.jobs()


async def test_an_older_schema_says_what_to_run_and_a_newer_one_serves_older_code(database_url: str) -> None:
    fill = Queries(KEYS.schema).fill
    async with Database(database_url, application_name="tests") as database, database.connection() as connection:
        await connection.execute(fill("INSERT INTO {schema}.schema_migrations VALUES (9999, 'of tomorrow')"))
        assert await check_migrated(connection, KEYS) == 9999
        assert await migrate(connection, KEYS) == []
        await connection.execute(fill("DELETE FROM {schema}.schema_migrations"))
        with pytest.raises(
            NotMigrated, match=f"the schema is at 0, this code needs {LATEST}: run `threadline migrate`"
        ):
            await check_migrated(connection, KEYS)


def test_lock_keys_are_the_same_on_every_machine_and_fit_postgres() -> None:
    assert lock_key("threadline:migrate") == 1_808_200_681_593_899_252
    assert all(-(2**63) <= lock_key(str(n)) < 2**63 for n in range(50))
    assert lock_key("threadline:migrate") != lock_key("staging:migrate")
