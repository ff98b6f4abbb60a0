"""Real servers once per run; for each test a database cloned from a migrated template, and a Redis database."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import secrets
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import structlog

from support.schema import event_errors, published
from support.servers import ServerUrls, test_servers
from support.workers import WorkerHandle, Workers

# A developer's shell must not reach into the tests.
for _name in [name for name in os.environ if name.startswith("THREADLINE_") or name in {"REDIS_URL", "DATABASE_URL"}]:
    if _name != "THREADLINE_EMBEDDED":
        del os.environ[_name]

# A module's logger that is first used while a test has the worker's pipe would keep that, and other tests, in whatever
# order they come, would capture nothing of it.
_UNCACHED = {"cache_logger_on_first_use": False}
structlog.configure = functools.partial(lambda configure, **how: configure(**how | _UNCACHED), structlog.configure)

# A shell that starts the tests in its background has SIGINT ignored, and tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

_redis_databases = itertools.cycle(range(1, 16))


@pytest.fixture(scope="session")
def servers() -> Iterator[ServerUrls]:
    with test_servers() as urls:
        yield urls


@pytest.fixture(scope="session")
def template(servers: ServerUrls) -> str:
    """A migrated database that tests are cloned from."""
    from threadline.contract.keys import Keys
    from threadline.ledger.database import Database
    from threadline_worker.backends import migrate_all

    name = f"template_{secrets.token_hex(4)}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")

    async def run() -> None:
        async with Database(_url(servers, name), application_name="tests", limit=60) as database:
            await migrate_all(database, Keys())

    asyncio.run(run())
    return name


@pytest.fixture
def empty_database_url(servers: ServerUrls) -> Iterator[str]:
    """A database of the test's own without any schema."""
    yield from _database(servers, "template0")


@pytest.fixture
def database_url(servers: ServerUrls, template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    yield from _database(servers, template)


@pytest.fixture
def redis_url(servers: ServerUrls) -> Iterator[str]:
    """An empty Redis database of the test's own (channels are shared, so job ids must be unique: they are)."""
    url = f"{servers.redis_url.rsplit('/', 1)[0]}/{next(_redis_databases)}"
    with redis.Redis.from_url(url) as connection:
        connection.flushdb()
        yield url


@pytest.fixture
def env(redis_url: str, database_url: str, tmp_path: Path) -> dict[str, str]:
    """What a process of the test needs: both servers, quick life signs, any free metrics port, the test graphs."""
    from support.chaos_processes import package_roots

    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **keep,
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        # The very package that runs here: a mutant, if this is one (tests/chaos/mutants.py).
        "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parent)]),
        "THREADLINE_AGENTS": ",".join(f"{name}=support.graphs:{name}" for name in ("steps", "ask", "fails", "chat")),
        "THREADLINE_MODEL": "offline",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_LOG_FORMAT": "json",
        "THREADLINE_CACHE_DIR": str(tmp_path / "cache"),
        "TEST_GATES": str(tmp_path / "gates"),
    }


@pytest.fixture
async def client(redis_url: str, database_url: str) -> AsyncIterator[object]:
    from threadline import Client

    async with Client(redis_url=redis_url, database_url=database_url) as made:
        yield made


@pytest.fixture
def workers(env: dict[str, str]) -> Iterator[Callable[..., WorkerHandle]]:
    """`workers(**env)` starts a real worker process and waits until it is ready; all are killed at the end.

    Whatever they have published by then must fit the contract's JSON Schema.
    """
    with Workers(env) as started:
        yield started.start
    assert [error for event in published(env["REDIS_URL"]) for error in event_errors(event)] == []


def _database(servers: ServerUrls, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield _url(servers, name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _url(servers: ServerUrls, name: str) -> str:
    return f"{servers.database_url.rsplit('/', 1)[0]}/{name}"
