"""Each part runs under its own role and user of deploy/, and the rest is denied it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import errors

from support.chaos_processes import package_roots
from support.estate import NAMESPACE, Estate, apply_sql, managed_database, valkey_with
from support.gates import Gates, until
from support.receiver import receiving
from support.workers import Workers
from threadline import Client, JobCancelled, JobInterrupted, ThreadBusy
from threadline.contract.keys import Keys
from threadline.ledger.sql import Queries
from threadline.settings import ClientSettings
from threadline_worker.embedded import ServerUrls

KEYS = Keys(NAMESPACE)
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}


@pytest.fixture(scope="module")
def part_env(estate: Estate, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "PATH": os.environ["PATH"],
        "REDIS_URL": estate.redis["worker"],
        "DATABASE_URL": estate.database["worker"],
        "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parents[1])]),
        "THREADLINE_NAMESPACE": NAMESPACE,
        "THREADLINE_AGENTS": "steps=support.graphs:steps,ask=support.graphs:ask",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_LOG_FORMAT": "json",
        "THREADLINE_WORKER_QUEUES": "default,deep",
        "THREADLINE_WEBHOOK_SECRETS": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
        "THREADLINE_WEBHOOK_ALLOW": "127.0.0.1",
        "TEST_GATES": str(folder / "gates"),
        **QUICK,
    }


@pytest.fixture(scope="module")
def crew(part_env: dict[str, str]) -> Iterator[Workers]:
    with Workers(part_env) as started:
        started.start()
        yield started


@pytest.fixture
async def producer(estate: Estate) -> AsyncIterator[Client]:
    settings = ClientSettings(
        redis_url=estate.redis["producer"], database_url=estate.database["producer"], keys=KEYS, lease_seconds=1.5
    )
    async with Client(settings=settings) as client:
        yield client


async def test_a_producer_and_a_worker_have_all_they_need(
    producer: Client, crew: Workers, part_env: dict[str, str], estate: Estate
) -> None:
    gates = Gates(part_env)
    job = await producer.enqueue("steps", {"done": [], "until": 2}, thread_id="t", idempotency_key="k")
    assert await job.result(timeout=20) == {"done": [0, 1], "until": 2}
    assert [event.type async for event in job.events()] == ["queued", "started", "updates", "updates", "succeeded"]
    gates.close("u", 0)
    running = await producer.enqueue("steps", {"done": [], "until": 1}, thread_id="u")
    await gates.begun("u", 0)
    behind = await producer.enqueue("steps", {"done": [], "until": 1}, thread_id="u")
    with pytest.raises(ThreadBusy):
        await producer.enqueue("steps", {"done": [], "until": 1}, thread_id="u", on_busy="reject")
    await behind.cancel()
    # The producer may not write the log: the ledger tells what it has done, and a worker after a while.
    assert [event.type async for event in behind.events()][-1] == "cancelled"
    await running.cancel(rollback=True)
    gates.open("u", 0)
    with pytest.raises(JobCancelled):
        await running.result(timeout=20)
    assert (await (await producer.retry(behind.job_id)).result(timeout=20))["until"] == 1
    assert len(await producer.jobs(thread_id="u")) == 2
    assert estate.refused() == {("producer", "evalsha")}


async def test_people_time_travel_threads_and_webhooks_too(producer: Client, crew: Workers, estate: Estate) -> None:
    with receiving() as receiver:
        asked = await producer.enqueue(
            "ask", {"done": [], "until": 1}, thread_id="p", webhook_url=receiver.url("/told")
        )
        with pytest.raises(JobInterrupted):
            await asked.result(timeout=20)
        await receiver.arrived()
        assert len(await producer.inbox()) == 1
        answered = await producer.resume("p", 7)
        await answered.result(timeout=20)
        await producer.redeliver(asked.job_id)
        assert (await producer.state("p", timeout=20))["values"]["done"] == [7]
        assert len(await producer.history("p", timeout=20)) > 1
        fork = await producer.fork("p", timeout=20)
        await producer.update_state(fork, {"done": [8]}, timeout=20)
    async with aclosing(producer.thread_events("p")) as events:
        kinds = [(await anext(events)).type for _ in range(4)]
    assert kinds == ["queued", "started", "updates", "interrupted"]
    with psycopg.connect(estate.admin) as connection:
        left = connection.execute(f"SELECT count(*) FROM {NAMESPACE}.jobs WHERE kind = 'internal'".encode()).fetchone()
    assert left == (0,)  # answers are forgotten once they were read
    assert estate.refused() <= {("producer", "evalsha")}


async def test_a_named_queue_needs_no_other_rights(producer: Client, crew: Workers, estate: Estate) -> None:
    job = await producer.enqueue("ask", {"done": [], "until": 1}, thread_id="q", queue="deep")
    with pytest.raises(JobInterrupted):
        await job.result(timeout=20)
    assert (await (await producer.resume("q", 7)).result(timeout=20))["done"] == [7]
    assert (await producer.state("q", timeout=20))["values"]["done"] == [7]
    settings = ClientSettings(redis_url=estate.redis["producer"], keys=KEYS)
    async with Client(settings=settings, queues={"steps": "deep"}) as redis_only:
        carried = await redis_only.enqueue("steps", {"done": [], "until": 1})
        assert (await carried.result(timeout=20))["done"] == [0]
    assert {status.queue for status in await producer.jobs(queue="deep")} == {"deep"}
    assert estate.refused() <= {("producer", "evalsha")}


async def test_a_worker_adopts_rescues_and_terminates(
    crew: Workers, part_env: dict[str, str], estate: Estate, producer: Client
) -> None:
    gates = Gates(part_env)
    settings = ClientSettings(redis_url=estate.redis["producer"], keys=KEYS)
    async with Client(settings=settings) as redis_only:
        gates.close("r", 1)
        job = await redis_only.enqueue("steps", {"done": [], "until": 3}, thread_id="r")
        victim = crew.started[0]
        await gates.begun("r", 1)
        heir = crew.start()
        # Frozen, not killed: its connections stand until the rescuer ends them (F3).
        victim.signal(signal.SIGSTOP)
        gates.open("r", 1)
        assert await job.result(timeout=30) == {"done": [0, 1, 2], "until": 3}
        assert heir.logged("worker.dead")["jobs"] == 1
        name = f"threadline:{victim.worker_id}"
        with psycopg.connect(estate.admin, autocommit=True) as connection:
            alive = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            await until(lambda: connection.execute(alive, (name,)).fetchone() == (0,), "its backends are gone")
        victim.signal(signal.SIGCONT)
        assert heir.terminate() == 0
    assert estate.refused() <= {("producer", "evalsha")}


def test_a_worker_with_anothers_role_says_so_and_ends_with_4(part_env: dict[str, str], estate: Estate) -> None:
    with Workers({**part_env, "DATABASE_URL": estate.database["producer"]}) as workers:
        worker = workers.start(wait=False)
        assert worker.process.wait(30) == 4
        worker._reader.join(5)
        role = f"{NAMESPACE}_producer lacks EXECUTE on {NAMESPACE}.assert_fence"
        assert worker.lines[-1].startswith(f"threadline: Postgres: permission denied: the role {role}")
        assert "apply deploy/postgres/grants.sql" in worker.lines[-1]


def test_a_worker_without_the_right_to_the_queue_says_so_and_ends_with_4(
    part_env: dict[str, str], estate: Estate
) -> None:
    with Workers({**part_env, "REDIS_URL": estate.redis["observer"]}) as workers:
        worker = workers.start(wait=False)
        assert worker.process.wait(30) == 4
        worker._reader.join(5)
        assert (
            "no permissions to run the 'zadd' command: give it the rights of deploy/redis/users.acl" in worker.lines[-1]
        )


def psql(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.replace("{}", NAMESPACE).encode())
        return cursor.fetchone() if cursor.description else None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT checkpoint FROM {}.checkpoints",
        "SELECT blob FROM {}.checkpoint_blobs",
        "SELECT blob FROM {}.checkpoint_writes",
        "SELECT value FROM {}.store",
        "SELECT result FROM {}.effects",
        "SELECT body FROM {}.dead_letters",
        "SELECT payload FROM {}.webhooks",
        "SELECT blob FROM {}.job_base_writes",
        "INSERT INTO {}.jobs (job_id, turn, thread_id, user_id, agent, fingerprint) VALUES ('j', 1, 't', 'u', 'a', '')",
        "UPDATE {}.jobs SET result = NULL",
        "UPDATE {}.jobs SET state = 'succeeded'",
        "DELETE FROM {}.jobs",
        "UPDATE {}.threads SET user_id = 'me'",
        "UPDATE {}.workers SET beat = beat",
        "INSERT INTO {}.cancel_requests (job_id, code) VALUES ('j', 'requested')",
        "SELECT {}.assert_fence('j', 't', 1, 'w')",
        "SELECT {}.begin_effect('j', 't', 1, 'w', 'k', true)",
        "CREATE TABLE {}.mine (n int)",
        "DROP TABLE {}.jobs",
    ],
)
def test_a_producer_is_denied(estate: Estate, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        psql(estate.database["producer"], statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE {}.mine (n int)",
        "DROP TABLE {}.jobs",
        "TRUNCATE {}.jobs",
        "ALTER TABLE {}.jobs ADD COLUMN mine int",
        "INSERT INTO {}.schema_migrations (version, name) VALUES (999, 'mine')",
        "DELETE FROM {}.checkpoint_migrations",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "COPY {}.jobs TO '/tmp/jobs'",
    ],
)
def test_a_worker_is_denied(estate: Estate, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        psql(estate.database["worker"], statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT input FROM {}.jobs",
        "SELECT result FROM {}.jobs",
        "SELECT user_id FROM {}.jobs",
        "SELECT thread_id FROM {}.threads",
        "SELECT thread_id FROM {}.checkpoints",
        "SELECT url FROM {}.webhooks",
        "SELECT body FROM {}.dead_letters",
        "SELECT {}.cancel_job('j', false)",
    ],
)
def test_an_observer_is_denied(estate: Estate, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        psql(estate.database["observer"], statement)


def test_an_observer_writes_nothing_even_where_it_could(estate: Estate) -> None:
    with pytest.raises(errors.ReadOnlySqlTransaction):
        psql(estate.database["observer"], "CREATE TEMP TABLE mine (n int)")


def test_an_observer_counts(estate: Estate) -> None:
    queries = Queries(NAMESPACE)
    with psycopg.connect(estate.database["observer"], autocommit=True) as connection:
        row = connection.execute(queries["queue_gauges"], {"lease_seconds": 15.0}).fetchone()
        assert row is not None
        for name in ("doctor_server", "doctor_tables", "doctor_ledger", "doctor_webhooks"):
            assert connection.execute(queries[name]).fetchone() is not None
        for name in ("doctor_workers", "doctor_queues"):
            connection.execute(queries[name], {"lease_seconds": 15.0}).fetchall()
    with redis.Redis.from_url(estate.redis["observer"]) as connection:
        assert connection.info("all")["aof_enabled"] == 1
        assert connection.zcard(KEYS.queue) >= 0
        assert connection.zcard(KEYS.queue_of("deep")) == 0


#: (who, command): each is one that some other part needs, or that would do harm.
DENIED_BY_REDIS = [
    ("producer", ("XADD", KEYS.events("j"), "*", "e", "{}")),
    ("producer", ("EVAL", "return 1", "0")),
    ("producer", ("PUBLISH", KEYS.events("j"), "{}")),
    ("producer", ("PUBLISH", KEYS.thread("t"), "{}")),
    ("producer", ("GET", "arq:job:other")),
    ("producer", ("ZRANGE", KEYS.queue, "0", "-1")),
    ("producer", ("DEL", KEYS.queue)),
    ("producer", ("ZRANGE", KEYS.queue_of("deep"), "0", "-1")),
    ("producer", ("ZADD", "threadline:queue:{deep}", "1", "x")),
    ("worker", ("GET", KEYS.queue_of("deep"))),
    ("producer", ("PSETEX", KEYS.queue, "1000", "x")),
    ("producer", ("ZADD", "threadline:queue", "1", "x")),  # another namespace's
    ("producer", ("XRANGE", "threadline:events:{j}", "-", "+")),
    ("producer", ("KEYS", "*")),
    ("worker", ("FLUSHALL",)),
    ("worker", ("KEYS", "*")),
    ("worker", ("CONFIG", "GET", "*")),
    ("worker", ("ACL", "LIST")),
    ("worker", ("SET", "elsewhere", "1")),
    ("worker", ("XADD", "threadline:events:{j}", "*", "e", "{}")),
    ("worker", ("GET", KEYS.events("j"))),
    ("worker", ("EVAL", "return 1", "0")),
    ("worker", ("PUBLISH", "elsewhere", "x")),
    ("observer", ("ZRANGE", KEYS.queue, "0", "-1")),
    ("observer", ("XRANGE", KEYS.events("j"), "-", "+")),
    ("observer", ("GET", "arq:job:other")),
    ("observer", ("PUBLISH", KEYS.wake, "1")),
    ("observer", ("CONFIG", "GET", "*")),
    ("observer", ("CLIENT", "KILL", "TYPE", "normal")),
]


@pytest.mark.parametrize(("user", "command"), DENIED_BY_REDIS, ids=str)
def test_redis_denies(estate: Estate, user: str, command: tuple[str, ...]) -> None:
    with redis.Redis.from_url(estate.redis[user]) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command)


def test_nobody_gets_in_without_a_name(estate: Estate) -> None:
    port = estate.redis["worker"].rpartition(":")[2].partition("/")[0]
    with redis.Redis(port=int(port)) as connection, pytest.raises(redis.exceptions.AuthenticationError):
        connection.ping()


def test_the_grants_are_the_same_when_they_are_given_again(estate: Estate) -> None:
    def given() -> object:
        return psql(
            estate.admin,
            "SELECT array_agg(relname || coalesce(relacl::text, '') ORDER BY relname) FROM pg_class"
            " WHERE relnamespace = '{}'::regnamespace",
        )

    before = given()
    for url, name in ((estate.admin, "roles.sql"), (estate.database["migrate"], "grants.sql")):
        done = apply_sql(url, name)
        assert (done.returncode, done.stderr) == (0, "")
    assert given() == before


def test_an_administrator_without_superuser_rights_can_make_the_roles(servers: ServerUrls) -> None:
    with managed_database(servers) as admin:
        for _ in range(2):
            done = apply_sql(admin, "roles.sql", THREADLINE_NAMESPACE="managed")
            assert (done.returncode, done.stderr) == (0, "")
        with psycopg.connect(admin) as connection:
            connection.execute("SET ROLE managed_migrate")
            connection.execute("CREATE SCHEMA IF NOT EXISTS managed")
            connection.execute("CREATE TABLE managed.later (n int)")
            connection.execute("SET ROLE NONE")
            may = "SELECT has_table_privilege(%s, 'managed.later', 'UPDATE')"
            found = {part: connection.execute(may, (f"managed_{part}",)).fetchone() for part in ("worker", "producer")}
    assert found == {"worker": (True,), "producer": (False,)}


@pytest.mark.parametrize("options", [["--maxmemory", "1"], ["--replicaof", "127.0.0.1 9"]], ids=["full", "replica"])
def test_what_the_sweep_asks_of_redis_tells_a_full_one_and_a_replica(tmp_path: Path, options: list[str]) -> None:
    refused = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)
    with valkey_with(tmp_path, *options) as port, redis.Redis(port=port) as connection, pytest.raises(refused):
        connection.zadd(KEYS.queue, {"": 0}, xx=True)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"THREADLINE_NAMESPACE": "Nope!"}, "use 1-40 of a-z"),
        ({"DATABASE_URL": "postgresql://nobody:x@127.0.0.1:1/x"}, "could not be applied"),
    ],
)
def test_a_mistake_is_one_line_and_exit_4(estate: Estate, env: dict[str, str], says: str) -> None:
    done = apply_sql(estate.admin, "roles.sql", **env)
    assert done.returncode == 4
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_grants_before_the_first_migration_say_what_to_run(estate: Estate) -> None:
    done = apply_sql(estate.admin, "grants.sql", THREADLINE_NAMESPACE="not_migrated")
    assert done.returncode == 4
    assert "run `threadline migrate` first" in done.stderr
