"""Both servers as deploy/ sets them up, under a namespace of its own: a role for each part, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import redis

from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all
from threadline_worker.embedded import ServerUrls
from threadline_worker.embedded.programs import find_valkey

__all__ = ["DEPLOY", "NAMESPACE", "PARTS", "Estate", "apply_sql", "estate_on", "managed_database", "valkey_with"]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAMESPACE = "acme_prod"
PARTS = ("migrate", "producer", "worker", "observer")


class Estate(NamedTuple):
    """The URLs of each part, by its name; `admin` is the superuser's, `redis["admin"]` one that deploy/ has not."""

    database: dict[str, str]
    redis: dict[str, str]
    admin: str

    def refused(self) -> set[tuple[str, str]]:
        """(user, what) that Redis has refused since it was asked last."""
        with redis.Redis.from_url(self.redis["admin"], decode_responses=True) as connection:
            found = {(entry["username"], entry["object"]) for entry in connection.acl_log()}
            connection.acl_log_reset()
        return found


def apply_sql(url: str, name: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What the migrate job does with a file of deploy/postgres."""
    command = [sys.executable, str(DEPLOY / "postgres" / "apply.py"), str(DEPLOY / "postgres" / name)]
    surroundings = {"DATABASE_URL": url, "THREADLINE_NAMESPACE": NAMESPACE, **env}
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def estate_on(servers: ServerUrls, folder: Path) -> Iterator[Estate]:
    """A migrated database and a Valkey of their own; roles are the cluster's, so they go in the end."""
    with _database(servers) as admin, _valkey(folder) as urls:
        _applied(admin, "roles.sql")
        database = {part: _with_role(admin, part) for part in PARTS}
        asyncio.run(_migrate(database["migrate"]))
        _applied(database["migrate"], "grants.sql")
        yield Estate(database, urls, admin)


@contextlib.contextmanager
def managed_database(servers: ServerUrls) -> Iterator[str]:
    """A database whose administrator is no superuser, as managed services have it; the URL is theirs."""
    name, owner = f"managed_{secrets.token_hex(6)}", f"owner_{secrets.token_hex(6)}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'managed'".encode())
        connection.execute(f"CREATE DATABASE {name} OWNER {owner}".encode())
        try:
            parts = urlsplit(servers.database_url)
            yield parts._replace(netloc=f"{owner}:managed@{parts.hostname}:{parts.port}", path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            for part in PARTS:
                connection.execute(f"DROP ROLE IF EXISTS managed_{part}".encode())
            connection.execute(f"DROP ROLE {owner}".encode())


def _applied(url: str, name: str) -> None:
    done = apply_sql(url, name)
    assert done.returncode == 0, done.stderr


async def _migrate(url: str) -> None:
    async with Database(url, application_name="tests", limit=60) as database:
        await migrate_all(database, Keys(NAMESPACE))


def _with_role(admin: str, part: str) -> str:
    """Give the role a password, as an administrator does, and log in with it."""
    role, password = f"{NAMESPACE}_{part}", secrets.token_hex(8)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'".encode())
    parts = urlsplit(admin)
    return parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}").geturl()


@contextlib.contextmanager
def _database(servers: ServerUrls) -> Iterator[str]:
    name = f"estate_{secrets.token_hex(6)}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{servers.database_url.rsplit('/', 1)[0]}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            for part in PARTS:
                connection.execute(f"DROP ROLE IF EXISTS {NAMESPACE}_{part}".encode())


@contextlib.contextmanager
def _valkey(folder: Path) -> Iterator[dict[str, str]]:
    """With the ACL file that render.sh makes, and the settings of deploy/compose."""
    passwords = {part: secrets.token_hex(8) for part in PARTS if part != "migrate"}
    for part, password in passwords.items():
        (folder / f"redis_{part}_password").write_text(password + "\n")
    render = [str(DEPLOY / "redis" / "render.sh"), str(DEPLOY / "redis" / "users.acl"), str(folder), NAMESPACE]
    made = subprocess.run(render, capture_output=True, text=True, check=True).stdout
    passwords["admin"] = secrets.token_hex(8)  # a hand of the tests alone: only such a user may ask what was denied
    (folder / "users.acl").write_text(f"{made}user admin on >{passwords['admin']} ~* &* +@all\n")
    with valkey_with(folder, "--aclfile", str(folder / "users.acl")) as port:
        yield {part: f"redis://{part}:{password}@127.0.0.1:{port}/0" for part, password in passwords.items()}


def _program() -> Path:
    return find_valkey(os.environ, None, lambda _step: None)


@contextlib.contextmanager
def valkey_with(folder: Path, *options: str) -> Iterator[int]:
    """A server with these options; the port it answers on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = str(DEPLOY / "redis" / "valkey.conf")
    command = [str(_program()), settings, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with (folder / "valkey.log").open("w") as log, subprocess.Popen([*command, *options], stdout=log) as process:
        try:
            _await_answer(port, process, folder)
            yield port
        finally:
            process.terminate()


def _await_answer(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 10
    while not _answers(port):
        assert process.poll() is None, (folder / "valkey.log").read_text()
        assert time.monotonic() < deadline, (folder / "valkey.log").read_text()
        time.sleep(0.02)


def _answers(port: int) -> bool:
    with redis.Redis(port=port) as connection:
        try:
            return bool(connection.ping())
        except redis.AuthenticationError:
            return True  # as it shall: nobody gets in without a name
        except redis.ConnectionError:
            return False
