"""A migration gives way: while it waits for a lock, jobs go on; what it cannot do, or another release did, is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from support.gates import until
from support.ledger import Bench, request
from support.nursery import Nursling
from threadline import BackendUnavailable, NotMigrated
from threadline.contract.keys import Keys
from threadline.ledger import migrate
from threadline.ledger.database import Database
from threadline.ledger.migrate import LATEST, check_migrated
from threadline.ledger.sql import migrations
from threadline_worker.backends import migrate_all

KEYS = Keys()
NEXT = (LATEST + 1, f"{LATEST + 1:04}_next.sql", "ALTER TABLE {schema}.jobs ADD COLUMN of_tomorrow text;")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with Database(url, application_name="tests", limit=60) as database, await database.connect() as connection:
        yield connection


def knows(monkeypatch: pytest.MonkeyPatch, *more: tuple[int, str, str]) -> None:
    """From now on the code has these migrations, too."""
    every = [*migrations(), *more]
    monkeypatch.setattr(migrate, "migrations", lambda: every)


async def test_jobs_are_enqueued_while_a_migration_waits_for_a_long_transaction(database_url, monkeypatch) -> None:
    knows(monkeypatch, NEXT)
    waits: list[str] = []
    async with (
        connected(database_url) as ours,
        connected(database_url) as other,
        Database(database_url, application_name="tests") as database,
    ):
        bench, took, holder = Bench(database), [], other.info.backend_pid
        async with other.transaction():
            await other.execute("SELECT count(*) FROM threadline.jobs")  # holds its lock until the end
            migrating = asyncio.create_task(migrate.migrate(ours, KEYS, on_wait=waits.append))
            while len(waits) < 2 and not migrating.done():
                asked, began = request(), time.monotonic()
                await bench.ledger.enqueue(asked, fingerprint="f", dispatching=False)
                took.append(time.monotonic() - began)
                await asyncio.sleep(0.02)
            assert not migrating.done()
        assert await migrating == [NEXT[1]]
    assert max(took) > 0.2  # some came while it stood in the way, or nothing is proven
    assert max(took) < 2  # and waited for no more than one try of it
    assert len(took) > 10
    assert f"waits for a lock that process {holder} (tests, " in waits[0]


async def test_a_migration_that_finds_no_moment_says_who_is_in_the_way_and_can_be_repeated(
    database_url, monkeypatch
) -> None:
    knows(monkeypatch, NEXT)
    async with connected(database_url) as ours, connected(database_url) as other:
        async with other.transaction():
            await other.execute("LOCK TABLE threadline.jobs IN ROW EXCLUSIVE MODE")
            with pytest.raises(BackendUnavailable, match=r"process \d+ \(tests, .* end that transaction"):
                await migrate.migrate(ours, KEYS, patience=0.1)
        with pytest.raises(NotMigrated, match=f"lacks {NEXT[1]}"):
            await check_migrated(ours, KEYS)
        assert await migrate.migrate(ours, KEYS) == [NEXT[1]]


async def test_who_waits_for_another_migration_is_told(database_url, monkeypatch) -> None:
    monkeypatch.setattr(migrate, "_TELL_SECONDS", 0.1)
    waits: list[str] = []
    async with connected(database_url) as ours, connected(database_url) as other:
        holder = other.info.backend_pid
        await migrate.take_lock(other, migrate.lock_key(f"{KEYS.schema}:migrate"))
        waiting = asyncio.create_task(migrate.migrate(ours, KEYS, on_wait=waits.append))
        await until(lambda: bool(waits), "it says so")
        await other.execute("SELECT pg_advisory_unlock_all()")
        assert await waiting == []
    assert f"another migration is under way: process {holder} (tests, " in waits[0]


async def test_a_deadlock_with_a_job_is_tried_again(database_url, monkeypatch) -> None:
    """The migration gives up, before Postgres chooses a victim; that would be the job, which has waited for longer."""
    text = "LOCK TABLE {schema}.threads; SELECT pg_sleep(0.2); LOCK TABLE {schema}.jobs;"
    knows(monkeypatch, (LATEST + 1, "next.sql", text))
    waits: list[str] = []
    async with connected(database_url) as ours, connected(database_url) as other:
        async with other.transaction():
            await other.execute("LOCK TABLE threadline.jobs IN ROW EXCLUSIVE MODE")
            migrating = asyncio.create_task(migrate.migrate(ours, KEYS, on_wait=waits.append))
            await until(lambda: has_locked_threads(other, ours.info.backend_pid), "its first lock is taken")
            await other.execute("LOCK TABLE threadline.threads IN ROW EXCLUSIVE MODE")
        assert await migrating == ["next.sql"]
    assert waits, "they never stood in each other's way: nothing is proven"


async def has_locked_threads(connection: psycopg.AsyncConnection, pid: int) -> bool:
    query = (
        "SELECT FROM pg_locks WHERE pid = %s AND granted AND mode = 'AccessExclusiveLock'"
        " AND relation = 'threadline.threads'::regclass"
    )
    return await (await connection.execute(query, (pid,))).fetchone() is not None


async def test_a_crash_in_the_middle_is_told_and_mended_by_migrating_again(empty_database_url, monkeypatch) -> None:
    suicide = (LATEST + 1, "next.sql", "CREATE TABLE {schema}.half (); SELECT pg_terminate_backend(pg_backend_pid());")
    with monkeypatch.context() as patched:
        every = [*migrations()[:4], suicide]
        patched.setattr(migrate, "migrations", lambda: every)
        async with connected(empty_database_url) as connection:
            with pytest.raises(psycopg.OperationalError):
                await migrate.migrate(connection, KEYS)
    async with connected(empty_database_url) as connection:
        with pytest.raises(
            NotMigrated, match=f"the schema is at 4, this code needs {LATEST}: run `threadline migrate`"
        ):
            await check_migrated(connection, KEYS)
        assert len(await migrate.migrate(connection, KEYS)) == len(migrations()) - 4
        assert await check_migrated(connection, KEYS) == LATEST


async def test_a_migration_whose_process_stands_still_lets_everybody_pass(database_url, monkeypatch) -> None:
    """It has locked the jobs by then."""
    seen: list[int] = []

    class Standing:
        def search(self, _text: str) -> None:
            with psycopg.connect(database_url, options="-c lock_timeout=20s") as other:  # this loop stands, too
                row = other.execute("SELECT count(*) FROM threadline.jobs").fetchone()
                seen.append(row[0] if row else -1)

    knows(monkeypatch, NEXT)
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "_OLDEST", Standing())
        patched.setattr(migrate, "_IDLE_TIMEOUT", "SET LOCAL idle_in_transaction_session_timeout = '300ms'")
        async with Database(database_url, application_name="tests", limit=60) as database:
            with pytest.raises(BackendUnavailable, match="idle-in-transaction timeout"):
                await migrate_all(database, KEYS)
    assert seen == [0]
    async with connected(database_url) as ours:
        assert await migrate.migrate(ours, KEYS) == [NEXT[1]]


async def test_a_migration_that_is_missing_in_between_is_told(database_url) -> None:
    async with connected(database_url) as connection:
        await connection.execute("DELETE FROM threadline.schema_migrations WHERE version = 6")
        with pytest.raises(NotMigrated, match=r"the schema lacks 0006_stretches\.sql: run `threadline migrate`"):
            await check_migrated(connection, KEYS)


def ended(env: dict[str, Any], command: str) -> tuple[int, str]:
    process = Nursling([command], env)
    with process.stderr:
        return process.wait(60), process.stderr.read()


async def test_a_schema_that_is_too_new_is_refused_and_one_that_is_newer_is_not(
    database_url, env, monkeypatch, workers
) -> None:
    with monkeypatch.context() as patched:
        knows(patched, NEXT)
        async with connected(database_url) as connection:
            await migrate.migrate(connection, KEYS)
    worker = workers(wait=False)
    told = worker.logged("worker.configuration", has="schema")
    assert (told["schema"], told["known"]) == (LATEST + 1, LATEST)
    assert worker.logged("worker.ready")
    assert worker.terminate() == 0

    contracting = (
        LATEST + 2,
        "later.sql",
        f"-- oldest: {LATEST + 1}\nALTER TABLE {{schema}}.jobs DROP COLUMN of_tomorrow;",
    )
    with monkeypatch.context() as patched:
        knows(patched, NEXT, contracting)
        patched.setattr(migrate, "LATEST", LATEST + 2)
        async with connected(database_url) as connection:
            assert await migrate.migrate(connection, KEYS) == ["later.sql"]
    says = f"the schema is at {LATEST + 2} and serves releases that know {LATEST + 1} or more; this one knows {LATEST}"
    for command in ("worker", "migrate"):
        code, error = ended(env, command)
        assert code == 4, error
        assert f"{says}: upgrade this program" in error
        assert "Traceback" not in error
