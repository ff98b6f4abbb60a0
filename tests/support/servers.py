"""Real servers for the tests: throw-away data, and hands to crash them and bring them back on the same ports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM, Signals
from typing import Final, Literal

import psycopg
import redis

from threadline_worker.embedded import Postgres, Servers, ServerUrls, Valkey, embedded_server_handles

__all__ = ["WHEELS", "PostgresStop", "ServerControl", "ask", "controlled_servers", "ping", "test_servers"]

# An environment in which only the wheels count, not what is installed on the machine.
WHEELS: Final = {"THREADLINE_EMBEDDED": "wheels", "PATH": os.environ["PATH"]}

PostgresStop = Literal["smart", "fast", "immediate", "kill"]
_POSTGRES_STOPS: Final[dict[PostgresStop, Signals]] = {
    "smart": SIGTERM,  # waits for sessions to end by themselves
    "fast": SIGINT,  # ends sessions, writes everything
    "immediate": SIGQUIT,  # as a crash of all backends; recovery at the next start
    "kill": SIGKILL,  # of the main process; the backends follow when they notice
}


class ServerControl:
    """Crashes and restarts; the URLs stay valid. Redis keeps nothing over a restart, Postgres everything committed."""

    def __init__(self, servers: Servers) -> None:
        if servers.valkey is None or servers.postgres is None:
            raise AssertionError("both servers must be embedded ones")
        self.urls: ServerUrls = servers.urls
        self.valkey: Valkey = servers.valkey
        self.postgres: Postgres = servers.postgres

    def kill_redis(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.valkey.kill()

    def restart_redis(self) -> None:
        """Start it again, empty; returns when it answers."""
        self.valkey.start()

    def freeze_redis(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self.valkey.freeze()

    def thaw_redis(self) -> None:
        """Let a frozen one go on."""
        self.valkey.thaw()

    def stop_postgres(self, mode: PostgresStop = "fast") -> None:
        """End Postgres in one of its ways; returns when its main process is gone."""
        self.postgres.stop(_POSTGRES_STOPS[mode])

    def restart_postgres(self) -> None:
        """Start it again with its data; returns when it answers."""
        self.postgres.start()


@contextlib.contextmanager
def controlled_servers(*, max_connections: int = 200) -> Iterator[ServerControl]:
    """Servers of one's own for a test that breaks them. REDIS_URL and DATABASE_URL of the shell are never touched."""
    env = {name: os.environ[name] for name in ("PATH", "THREADLINE_EMBEDDED") if name in os.environ}
    with embedded_server_handles(None, durable=False, env=env, max_connections=max_connections) as servers:
        yield ServerControl(servers)


@contextlib.contextmanager
def test_servers(*, max_connections: int = 300) -> Iterator[ServerUrls]:  # noqa: PT028 -- no test, see below
    """Servers for the whole test run, up in about half a second."""
    with controlled_servers(max_connections=max_connections) as control:
        yield control.urls


def ask(urls: ServerUrls, query: str) -> object:
    """The first column of a query's first row."""
    with psycopg.connect(urls.database_url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def ping(url: str) -> bool:
    """Whether the Redis answers; its errors are raised."""
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


test_servers.__test__ = False  # type: ignore[attr-defined]  # pytest would take the name for a test's
