"""L3 for blocking callers: the job is part of their transaction, and the insert runs in their thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis as redis_py
from psycopg.rows import scalar_row

from support.ledger import cloned, emptied
from support.waiting import interrupt_when, soon
from threadline import BackendUnavailable, InvalidJob, JobNotFound, NeedsDatabase, ThreadBusy, UnknownAgent
from threadline.contract.keys import Keys
from threadline.sync import Client, Job
from threadline_worker.embedded import ServerUrls

KEYS = Keys()


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
def database_url(shared: str) -> str:
    return emptied(shared)


@pytest.fixture
def client(redis_url: str, database_url: str) -> Iterator[Client]:
    with Client(redis_url=redis_url, database_url=database_url) as made:
        yield made


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def callers(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as a web framework has it: no autocommit, tuples for rows."""
    with psycopg.connect(database_url) as connection:
        yield connection


def waits_for_a_lock(database_url: str) -> bool:
    """Whether a session of this database waits for a lock."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'",
            (urlsplit(database_url).path[1:],),
        ).fetchone()
    return row is not None


def test_L3_a_job_is_part_of_the_callers_transaction(
    client: Client, callers: psycopg.Connection[Any], redis: redis_py.Redis
) -> None:
    job = client.enqueue("steps", "a", thread_id="t", connection=callers)
    with pytest.raises(JobNotFound):
        job.status()
    callers.rollback()
    with pytest.raises(JobNotFound):
        job.status()
    job = client.enqueue("steps", "a", thread_id="t", connection=callers)
    callers.commit()
    assert job.status().state == "queued"
    assert redis.zcard(KEYS.queue) == 0  # dispatch follows the commit, by whoever is told of it


def test_L3_a_refused_job_does_not_spoil_the_callers_transaction(
    client: Client, callers: psycopg.Connection[Any]
) -> None:
    client.enqueue("steps", "a", thread_id="t", connection=callers)
    with pytest.raises(ThreadBusy):
        client.enqueue("steps", "b", thread_id="t", on_busy="reject", connection=callers)
    with pytest.raises(InvalidJob, match="input is empty"):
        client.enqueue("steps", "", connection=callers)
    callers.execute("CREATE TABLE of_the_caller ()")
    callers.commit()
    assert [status.thread_id for status in client.jobs()] == ["t"]
    callers.execute("DROP TABLE of_the_caller")
    callers.commit()


def test_L3_an_unknown_agent_is_refused_inside_a_transaction(
    client: Client, callers: psycopg.Connection[Any], database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO threadline.workers (worker_id, lock_key, version, agents, concurrency)"
            """ VALUES ('w', 1, '0', '{"steps": {}}', 1)"""
        )
    with pytest.raises(UnknownAgent, match="known: steps"):
        client.enqueue("other", "a", connection=callers)
    assert callers.execute("SELECT 1").fetchone() == (1,)


def test_L3_any_row_factory_will_do(client: Client, database_url: str) -> None:
    with psycopg.connect(database_url, row_factory=scalar_row) as callers:
        job = client.enqueue("steps", "a", connection=callers)
        assert callers.execute("SELECT 7").fetchone() == 7
    assert job.status().state == "queued"


def test_L3_an_autocommit_connection_commits_at_once(client: Client, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as callers:
        assert client.enqueue("steps", "a", connection=callers).status().state == "queued"


def test_L3_an_error_of_the_connection_is_told_and_undone(client: Client, database_url: str) -> None:
    with psycopg.connect(database_url, options="-c statement_timeout=100") as callers:
        with psycopg.connect(database_url) as locker:
            locker.execute("LOCK TABLE threadline.jobs")
            with pytest.raises(BackendUnavailable, match="Postgres: canceling statement due to statement timeout"):
                client.enqueue("steps", "a", connection=callers)
        assert callers.execute("SELECT 1").fetchone() == (1,)
    assert client.jobs() == []


def test_L3_a_lock_that_the_insert_waits_for_holds_up_its_caller_alone(client: Client, database_url: str) -> None:
    job = client.enqueue("steps", "a", thread_id="t")
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    with psycopg.connect(database_url) as locker, psycopg.connect(database_url) as callers:
        locker.execute("SELECT FROM threadline.threads FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:

            def enqueue() -> Job:
                told.put(threading.get_ident())
                return client.enqueue("steps", "b", thread_id="t", connection=callers)

            waiting = pool.submit(enqueue)
            told.get(timeout=20)
            soon(lambda: waits_for_a_lock(database_url))
            assert job.status().state == "queued"
            locker.rollback()
            assert waiting.result(timeout=20).thread_id == "t"
        callers.commit()
    assert len(client.jobs()) == 2


def test_L3_ctrl_c_during_the_insert_leaves_the_transaction_to_the_caller(client: Client, database_url: str) -> None:
    client.enqueue("steps", "a", thread_id="t")
    with psycopg.connect(database_url) as locker, psycopg.connect(database_url) as callers:
        locker.execute("SELECT FROM threadline.threads FOR UPDATE")
        watcher = interrupt_when(lambda: waits_for_a_lock(database_url))
        with pytest.raises(KeyboardInterrupt):
            client.enqueue("steps", "b", thread_id="t", connection=callers)
        watcher.join()
        locker.rollback()
        assert callers.execute("SELECT 1").fetchone() == (1,)
        callers.commit()
    assert len(client.jobs()) == 1


@pytest.mark.parametrize("connection", [object(), "postgresql://"])
def test_what_is_no_psycopg_connection_is_refused(client: Client, connection: Any) -> None:
    with pytest.raises(
        InvalidJob, match=r"give a psycopg \(3\) Connection; with Django that is `connection.connection`"
    ):
        client.enqueue("steps", "a", connection=connection)
    assert client.jobs() == []


def test_a_connection_needs_a_database(redis_url: str, callers: psycopg.Connection[Any]) -> None:
    with Client(redis_url=redis_url) as client, pytest.raises(NeedsDatabase, match="give the client a database_url"):
        client.enqueue("steps", "a", connection=callers)
