"""Servers that refuse at the start: one sentence says what is wrong and what to do, at once, without a secret."""

from __future__ import annotations

import secrets
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from support.estate import valkey_with
from support.nursery import called
from threadline import BackendUnavailable
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline.redis_client import REDIS_ERRORS, connect_redis, refused
from threadline_worker.backends import wait_for_servers
from threadline_worker.embedded import ServerUrls

SECRET = "hunter2"
#: A worker that waits for what waiting does not mend would take thirty.
AT_ONCE_SECONDS = 15
NOBODY = "0" * 32


def given(url: str, *, user: str | None = None, password: str | None = None, path: str = "", query: str = "") -> str:
    """The URL with something else in it."""
    parts = urlsplit(url)
    login = f"{parts.username or '' if user is None else user}:{password or parts.password}"
    changed = parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}", query=query)
    return (changed._replace(path=path) if path else changed).geturl()


def sentence(done: subprocess.CompletedProcess[str], code: int, *says: str) -> str:
    """The last line on stderr; what every end by a fault has in common is looked at."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert SECRET not in done.stderr + done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("threadline: ")
    for words in says:
        assert words in last
    return last


@pytest.fixture(scope="module")
def roles(servers: ServerUrls) -> Iterator[Callable[[str, str], str]]:
    """`roles(url, statements)`: the URL of a new role with these rights (`{}` is its name)."""
    made: list[tuple[str, str]] = []

    def make(url: str, statements: str) -> str:
        name = f"role_{secrets.token_hex(4)}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'".encode())
            made.append((url, name))
            if statements:
                connection.execute(statements.replace("{}", name).encode())
        return given(url, user=name, password=SECRET)

    yield make
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        for _url, name in made:  # their databases are gone by now, and the grants with them
            connection.execute(f"DROP ROLE {name}".encode())


POSTGRES = [
    ("wrong_password", "password authentication failed", "correct user and password in DATABASE_URL"),
    ("unknown_user", "password authentication failed", "correct user and password in DATABASE_URL"),
    ("unknown_database", 'database "nowhere" does not exist', "correct the last part of DATABASE_URL"),
    ("wants_tls", "server does not support SSL", "sslmode=disable"),
    ("no_rights", "permission denied for schema threadline", "deploy/postgres/grants.sql"),
]


def postgres_with(fault: str, url: str, roles: Callable[[str, str], str]) -> str:
    match fault:
        case "wrong_password":
            return given(url, password=SECRET)
        case "unknown_user":
            return given(url, user="nobody", password=SECRET)
        case "unknown_database":
            return given(url, path="/nowhere")
        case "wants_tls":
            return given(url, query="sslmode=require")
        case _:
            return roles(url, "")


@pytest.mark.parametrize(("fault", "says", "advice"), POSTGRES, ids=[case[0] for case in POSTGRES])
def test_a_postgres_that_refuses_is_told_at_once(
    fault: str, says: str, advice: str, env: dict[str, str], roles: Callable[[str, str], str]
) -> None:
    wrong = {**env, "DATABASE_URL": postgres_with(fault, env["DATABASE_URL"], roles)}
    began = time.monotonic()
    for command in (["worker"], ["status", NOBODY], ["enqueue", "steps", "x"], ["watch", NOBODY]):
        sentence(called(command, wrong), 4, "Postgres: ", says, advice)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    if fault != "no_rights":  # migrate says its own
        sentence(called(["migrate"], wrong), 4, says, advice)
    seen = called(["doctor"], wrong)
    assert seen.returncode == 4
    assert says in seen.stdout
    assert SECRET not in seen.stdout + seen.stderr


@pytest.mark.parametrize(
    ("grants", "lacks"),
    [
        ("GRANT SELECT ON ALL TABLES IN SCHEMA threadline TO {}", "INSERT on threadline.checkpoint_blobs"),
        (
            "GRANT ALL ON ALL TABLES IN SCHEMA threadline TO {}; REVOKE SELECT ON threadline.checkpoints FROM {}",
            "SELECT on threadline.checkpoints",
        ),
        (
            "GRANT ALL ON ALL TABLES IN SCHEMA threadline TO {}; REVOKE INSERT ON threadline.jobs FROM {}",
            "INSERT on threadline.jobs",
        ),
    ],
    ids=["observer", "no_checkpoints", "no_jobs"],
)
def test_a_worker_says_which_right_its_role_lacks(
    grants: str, lacks: str, env: dict[str, str], roles: Callable[[str, str], str]
) -> None:
    url = roles(env["DATABASE_URL"], f"GRANT USAGE ON SCHEMA threadline TO {{}}; {grants}")
    sentence(called(["worker"], {**env, "DATABASE_URL": url}), 4, "the role role_", lacks, "deploy/postgres/grants.sql")


def test_the_doctor_says_what_a_role_may_not(env: dict[str, str], roles: Callable[[str, str], str]) -> None:
    rights = "GRANT USAGE ON SCHEMA threadline TO {}; GRANT SELECT ON ALL TABLES IN SCHEMA threadline TO {}"
    seen = called(["doctor"], {**env, "DATABASE_URL": roles(env["DATABASE_URL"], rights)})
    assert seen.returncode == 0
    assert "no worker can run as" in seen.stdout


def test_F5_a_read_only_server_is_told(env: dict[str, str]) -> None:
    read_only = {
        **env,
        "DATABASE_URL": given(env["DATABASE_URL"], query="options=-cdefault_transaction_read_only%3Don"),
    }
    sentence(called(["worker"], read_only), 4, "takes no writes", "point DATABASE_URL at the primary")
    sentence(called(["enqueue", "steps", "x"], read_only), 4, "read-only transaction", "the primary")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DELETE FROM threadline.schema_migrations WHERE version = 4", "0004_resume.sql"),
        ("DROP TABLE threadline.checkpoints", "LangGraph's checkpoints are not in the schema threadline"),
        ("DROP SCHEMA threadline CASCADE; CREATE SCHEMA threadline", "has no Threadline schema"),
        ("DROP SCHEMA threadline CASCADE", "has no Threadline schema"),
    ],
    ids=["one_missing", "no_checkpoints", "empty_schema", "no_schema"],
)
def test_half_a_schema_is_told_and_what_to_run(damage: str, says: str, env: dict[str, str]) -> None:
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(damage.encode())
    sentence(called(["worker"], env), 4, says, "run `threadline migrate`")
    assert called(["doctor"], env).returncode == 4


def test_a_newer_schema_serves_this_code(env: dict[str, str]) -> None:
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("INSERT INTO threadline.schema_migrations (version, name) VALUES (9999, 'later.sql')")
    assert called(["worker", "--burst"], env).returncode == 0


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def narrow_url(request: pytest.FixtureRequest, servers: ServerUrls) -> Iterator[str]:
    name = f"narrow_{secrets.token_hex(4)}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'".encode())
        yield given(servers.database_url, path=f"/{name}")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_database_that_cannot_store_every_text_is_refused(narrow_url: str, env: dict[str, str]) -> None:
    narrow = {**env, "DATABASE_URL": narrow_url}
    sentence(called(["migrate"], narrow), 4, "has the encoding", "createdb --encoding=UTF8")
    seen = called(["doctor"], narrow)
    assert "createdb --encoding=UTF8" in seen.stdout


def test_no_connection_left_is_told(env: dict[str, str], roles: Callable[[str, str], str]) -> None:
    url = roles(env["DATABASE_URL"], "ALTER ROLE {} CONNECTION LIMIT 0")
    sentence(called(["status", NOBODY], {**env, "DATABASE_URL": url}), 4, "too many connections", "max_connections")


def test_a_host_that_nobody_knows_is_told(env: dict[str, str]) -> None:
    lost = {**env, "DATABASE_URL": f"postgresql://me:{SECRET}@no-such-host.invalid/db"}
    sentence(called(["status", NOBODY], lost), 4, "no-such-host.invalid", "correct the host in DATABASE_URL")
    alone = {**env, "REDIS_URL": f"redis://:{SECRET}@no-such-host.invalid:1/0", "DATABASE_URL": ""}
    sentence(called(["watch", NOBODY], alone), 4, "no-such-host.invalid", "correct the host in REDIS_URL")


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with valkey_with(tmp_path_factory.mktemp("valkey")) as port, redis.Redis(port=port, decode_responses=True) as admin:
        admin.acl_setuser("weak", enabled=True, passwords=[f"+{SECRET}"], commands=["+ping"], reset=True)
        everything_but = ["+@all", "-publish"]
        admin.acl_setuser(
            "mute", enabled=True, passwords=[f"+{SECRET}"], commands=everything_but, keys=["*"], channels=["*"]
        )
        admin.acl_setuser(
            "elsewhere", enabled=True, passwords=[f"+{SECRET}"], commands=["+@all"], keys=["other:*"], channels=["*"]
        )
        admin.acl_setuser(
            "whole", enabled=True, passwords=[f"+{SECRET}"], commands=["+@all"], keys=["*"], channels=["*"]
        )
        yield admin


REDIS = [
    ("whole:wrong", "", "invalid username-password pair", "correct user and password in REDIS_URL"),
    ("nobody:wrong", "", "invalid username-password pair", "correct user and password in REDIS_URL"),
    (f"whole:{SECRET}", "99", "DB index is out of range", "the number at the end of REDIS_URL"),
    (f"weak:{SECRET}", "", "no permissions to run the 'zadd' command", "deploy/redis/users.acl"),
    (f"mute:{SECRET}", "", "no permissions to run the 'publish' command", "deploy/redis/users.acl"),
    (f"elsewhere:{SECRET}", "", "No permissions to access a key", "deploy/redis/users.acl"),
]


@pytest.mark.parametrize(
    ("login", "number", "says", "advice"),
    REDIS,
    ids=["wrong_password", "unknown_user", "number", "command", "channel", "key"],
)
def test_a_redis_that_refuses_is_told_at_once(  # noqa: PLR0917 - a row of the table, and two fixtures
    login: str, number: str, says: str, advice: str, valkey: redis.Redis, env: dict[str, str]
) -> None:
    port = valkey.get_connection_kwargs()["port"]
    wrong = {**env, "REDIS_URL": f"redis://{login}@127.0.0.1:{port}/{number or 0}"}
    began = time.monotonic()
    sentence(called(["worker"], wrong), 4, "Redis: ", says, advice)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    accepted = called(["enqueue", "steps", "x"], wrong)  # Redis is not needed for that
    assert (accepted.returncode, len(accepted.stdout.strip())) == (0, 32)
    if login[0] == "w" and "wrong" in login:
        sentence(called(["enqueue", "steps", "x"], {**wrong, "DATABASE_URL": ""}), 4, says, advice)
        sentence(called(["watch", NOBODY], {**wrong, "DATABASE_URL": ""}), 4, says, advice)
        assert called(["doctor"], wrong).returncode == 4


def test_a_password_that_is_missing_ends_the_call(redis_url: str, env: dict[str, str]) -> None:
    """redis-py 5 would connect again inside itself without an end."""
    parts = urlsplit(redis_url)
    bare = {**env, "REDIS_URL": f"redis://127.0.0.1:{parts.port}{parts.path}"}
    began = time.monotonic()
    sentence(called(["worker"], bare), 4, "Authentication required", "put user and password into REDIS_URL")
    assert time.monotonic() - began < AT_ONCE_SECONDS


def test_a_replica_is_told_at_once(valkey: redis.Redis, env: dict[str, str]) -> None:
    port = valkey.get_connection_kwargs()["port"]
    valkey.execute_command("REPLICAOF", "127.0.0.1", "9")
    try:
        done = called(["worker"], {**env, "REDIS_URL": f"redis://whole:{SECRET}@127.0.0.1:{port}/0"})
    finally:
        valkey.execute_command("REPLICAOF", "NO", "ONE")
    sentence(done, 4, "read only replica", "point REDIS_URL at the primary")


class Loading(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(65_536):
            self.request.sendall(b"-LOADING Valkey is loading the dataset in memory\r\n")


async def test_a_loading_redis_is_waited_for(database_url: str) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Loading) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        client = connect_redis(f"redis://127.0.0.1:{server.server_address[1]}/0")
        async with Database(database_url, application_name="tests") as database:
            with pytest.raises(BackendUnavailable, match="loading the dataset") as caught:
                await wait_for_servers(client, database, Keys(), limit=0.5)
        assert caught.value.passing
        await client.aclose()
        server.shutdown()


async def test_a_full_redis_is_waited_for(valkey: redis.Redis, database_url: str) -> None:
    port = valkey.get_connection_kwargs()["port"]
    client = connect_redis(f"redis://127.0.0.1:{port}/0")
    valkey.config_set("maxmemory", "1")
    try:
        async with Database(database_url, application_name="tests") as database:
            with pytest.raises(BackendUnavailable, match=r"maxmemory.*raise `maxmemory`"):
                await wait_for_servers(client, database, Keys(), limit=0.5)
    finally:
        valkey.config_set("maxmemory", "0")
    async with Database(database_url, application_name="tests") as database:
        await wait_for_servers(client, database, Keys(), limit=0.5)
    await client.aclose()


async def test_a_redis_that_wants_no_tls_is_told() -> None:
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            self.request.sendall(b"-ERR unknown command\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        client = connect_redis(f"rediss://127.0.0.1:{server.server_address[1]}/0")
        try:
            await client.ping()
        except REDIS_ERRORS as error:
            said = refused(error)
        assert "redis://" in str(said)
        await client.aclose()
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("THREADLINE_CONCURRENCY", "many", "THREADLINE_CONCURRENCY='many': give a number between 1 and 10000"),
        ("THREADLINE_CONCURRENCY", "0", "between 1 and 10000"),
        ("THREADLINE_METRICS_PORT", "70000", "between 0 and 65535"),
        ("THREADLINE_LEASE_SECONDS", "1", "raise the lease"),
        ("THREADLINE_LOG_LEVEL", "loud", "use one of debug, info, warning, error"),
        ("THREADLINE_AGENTS", str(Path("/nowhere/langgraph.json")), "/nowhere/langgraph.json"),
        ("THREADLINE_NAMESPACE", "No Way", "THREADLINE_NAMESPACE"),
        ("REDIS_URL", "", "REDIS_URL is not set"),
        ("DATABASE_URL", "", "DATABASE_URL is not set"),
        ("THREADLINE_ENQUEUE_KEYS", f"k:{SECRET}", "THREADLINE_ENQUEUE_KEYS"),
        ("THREADLINE_ENCRYPTION_KEYS", f"k:{SECRET}", "THREADLINE_ENCRYPTION_KEYS"),
        ("THREADLINE_WEBHOOK_SECRETS", SECRET, "THREADLINE_WEBHOOK_SECRETS"),
    ],
)
def test_a_setting_without_a_meaning_is_usage(name: str, value: str, says: str, env: dict[str, str]) -> None:
    sentence(called(["worker"], {**env, name: value}), 2, says)


def test_a_mistyped_setting_is_a_warning_with_the_nearest_name(env: dict[str, str]) -> None:
    done = called(["worker", "--burst"], {**env, "THREADLINE_CONCURENCY": "3"})
    assert done.returncode == 0
    assert "did you mean THREADLINE_CONCURRENCY?" in done.stderr


@pytest.mark.parametrize("port", ["", "0"])
def test_a_metrics_host_that_is_not_this_machines_is_told(port: str, env: dict[str, str]) -> None:
    elsewhere = {**env, "THREADLINE_METRICS_HOST": "no-such-host.invalid", "THREADLINE_METRICS_PORT": port}
    sentence(
        called(["worker"], elsewhere),
        4,
        "THREADLINE_METRICS_HOST=no-such-host.invalid",
        "0.0.0.0 (with IPv6 ::) for all",
    )


def test_a_port_that_is_taken_is_told_if_it_was_chosen(env: dict[str, str]) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as other:
        port = str(other.server_address[1])
        done = called(["worker", "--burst"], {**env, "THREADLINE_METRICS_PORT": port})
    sentence(done, 4, f"THREADLINE_METRICS_PORT={port} cannot be listened on", "choose another, or 0")
