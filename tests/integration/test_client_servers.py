"""Servers that are away, refuse or are named wrongly: one sentence that says which and what to do, never a password."""

from __future__ import annotations

import asyncio
import traceback
from urllib.parse import urlsplit, urlunsplit

import pytest
from redis.asyncio import Redis

from support.ledger import bench_on
from threadline import BackendUnavailable, Client, ConfigurationError, ThreadlineError
from threadline.ledger.database import Database
from threadline_worker.embedded import ServerUrls

SECRET = "hunter2"


def told(error: BaseException) -> str:
    """All that a log would show of it, causes included."""
    return "".join(traceback.format_exception(error))


async def refusal(*, redis_url: str | None = None, database_url: str | None = None) -> ThreadlineError:
    """What enqueue and a look at the log raise with these servers; AssertionError if neither raises."""
    try:
        async with Client(redis_url=redis_url, database_url=database_url) as client:
            job = await client.enqueue("steps", "a")
            async for _ in job.events():
                raise AssertionError("there was a server")
    except ThreadlineError as error:
        return error
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://root:{SECRET}@localhost/db",
        f"postgresql://u:{SECRET}%zz@localhost/db",
        f"postgresql://u:{SECRET}/x@localhost:5432/db",
        f"postgresql://u:x@{SECRET}@localhost/db",
        f"postgresql://u:{SECRET}@localhost:port/db",
        f"postgresql://u:{SECRET}@localhost/db?nonsense=1",
        f"host=localhost nonsense=1 password={SECRET}",
        f"host=localhost password='{SECRET}",
        SECRET,
    ],
)
def test_a_database_url_that_cannot_be_read_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match="DATABASE_URL is not a URL that libpq reads: use postgresql://"
    ) as caught:
        Client(database_url=url)
    assert SECRET not in told(caught.value).replace(repr(url), "").replace(url, "")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        f"localhost:6379/{SECRET}",
        f"http://:{SECRET}@localhost",
        f"redis://:{SECRET}/x@localhost:6379/0",
        f"redis://:x@localhost:{SECRET}/0",
        f"redis://:{SECRET}#x@localhost:6379/0",
    ],
)
def test_a_redis_url_that_cannot_be_read_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL is not a URL that redis-py reads: use redis://") as caught:
        Client(redis_url=url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:1/db", 'Postgres: connection failed: .* "127.0.0.1", port 1 failed'),
        (f"postgresql://u:{SECRET}@127.0.0.1:99999/db", "Postgres: .*invalid port number"),
        (f"postgresql://u:{SECRET}@no-such-host.invalid/db", "Postgres: failed to resolve host 'no-such-host.invalid'"),
    ],
)
async def test_a_postgres_that_cannot_be_reached_is_named(url: str, says: str) -> None:
    error = await refusal(database_url=url)
    assert isinstance(error, BackendUnavailable)
    assert error.args[0].count("\n") == 0
    with pytest.raises(BackendUnavailable, match=says):
        raise error
    assert SECRET not in told(error)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:6379"])
async def test_a_redis_that_cannot_be_reached_is_named(host: str) -> None:
    error = await refusal(redis_url=f"redis://u:{SECRET}@{host}/0")
    assert isinstance(error, BackendUnavailable)
    assert "Redis: Error" in str(error)
    assert host.split(":", maxsplit=1)[0] in str(error)
    assert SECRET not in told(error)


async def test_a_wrong_password_is_named_and_not_shown(servers: ServerUrls) -> None:
    def wrong(url: str) -> str:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{SECRET}@{parts.hostname}:{parts.port}"))

    for urls, says in (
        ({"database_url": wrong(servers.database_url)}, "password authentication failed"),
        ({"redis_url": wrong(servers.redis_url)}, "Redis: .*(WRONGPASS|invalid username-password|invalid password)"),
    ):
        error = await refusal(**urls)
        with pytest.raises(BackendUnavailable, match=says):
            raise error
        assert SECRET not in told(error)


async def test_a_database_that_does_not_exist_is_named(servers: ServerUrls) -> None:
    error = await refusal(database_url=servers.database_url.rsplit("/", 1)[0] + "/nowhere")
    assert "Postgres: " in str(error)
    assert 'database "nowhere" does not exist' in str(error)


async def test_a_read_only_server_is_unavailable(database_url: str, redis_url: str) -> None:
    url = f"{database_url}?options=-c%20default_transaction_read_only%3Don"
    error = await refusal(database_url=url, redis_url=redis_url)
    assert isinstance(error, BackendUnavailable)
    assert "read-only transaction" in str(error)


async def test_a_user_without_rights_is_told(database_url: str) -> None:
    async with bench_on(database_url) as bench:
        await bench.sql("DROP ROLE IF EXISTS guest")
        await bench.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    parts = urlsplit(database_url)
    guest = urlunsplit(parts._replace(netloc=f"guest:guest@{parts.hostname}:{parts.port}"))
    error = await refusal(database_url=guest)
    assert isinstance(error, BackendUnavailable)
    assert "permission denied for schema threadline" in str(error)


async def test_a_statement_that_hangs_is_cut_off(database_url: str) -> None:
    async with bench_on(database_url) as bench, bench.ledger.database.connection() as locker:
        async with Database(database_url, application_name="tests", limit=0.2) as impatient, locker.transaction():
            await locker.execute("LOCK TABLE threadline.jobs")
            with pytest.raises(
                BackendUnavailable, match=r"Postgres did not answer within 0\.2 s: is DATABASE_URL right\?"
            ):
                await impatient.rows("SELECT 1 FROM threadline.jobs")
        assert await bench.sql("SELECT 1 FROM threadline.jobs") == []


def test_a_client_without_servers_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="set REDIS_URL and DATABASE_URL"):
        Client()
    with pytest.raises(ConfigurationError, match="set REDIS_URL and DATABASE_URL"):
        Client.from_env({})


async def test_a_client_of_the_environment_uses_its_namespace(database_url: str, redis_url: str) -> None:
    env = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "THREADLINE_NAMESPACE": "staging"}
    async with Client.from_env(env) as client:
        with pytest.raises(BackendUnavailable, match="threadline migrate"):
            await client.enqueue("steps", "a")
    async with Client.from_env({"REDIS_URL": redis_url, "THREADLINE_NAMESPACE": "staging"}) as client:
        job = await client.enqueue("steps", "a")
    async with Redis.from_url(redis_url) as redis:
        assert await redis.zcard("staging:queue") == 1
        assert await redis.exists(f"staging:events:{{{job.job_id}}}") == 1


async def test_a_client_opens_few_connections_however_many_ask_at_once(database_url: str) -> None:
    name = urlsplit(database_url).path[1:]
    async with (
        await Database(database_url, application_name="observer").connect() as observer,
        Client(database_url=database_url) as client,
    ):
        asking = asyncio.gather(*(client.enqueue("steps", "a") for _ in range(50)))
        most = 0
        while not asking.done():
            cursor = await observer.execute(
                "SELECT count(*) AS n FROM pg_stat_activity"
                " WHERE datname = %s AND application_name = 'threadline-client'",
                (name,),
            )
            row = await cursor.fetchone()
            most = max(most, row["n"] if row else 0)
        await asking
        assert 1 <= most <= 5


async def test_closing_twice_is_closing_once(database_url: str, redis_url: str) -> None:
    client = Client(redis_url=redis_url, database_url=database_url)
    await client.enqueue("steps", "a")
    await client.aclose()
    await client.aclose()
    with pytest.raises(BackendUnavailable):
        await client.jobs()
