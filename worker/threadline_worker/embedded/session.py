"""Starts what is missing of Redis and Postgres for the length of a block; nothing of it outlives the process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from threadline.errors import BackendUnavailable
from threadline_worker.embedded.account import Account, account_to_drop_to, throw_away_place
from threadline_worker.embedded.errors import EmbeddedFailed
from threadline_worker.embedded.folder import (
    Access,
    DataFolder,
    data_place,
    hold_or_find,
    open_folder,
    read_access,
    write_access,
)
from threadline_worker.embedded.keeper import Keeper, keeper
from threadline_worker.embedded.postgres import Postgres
from threadline_worker.embedded.programs import PostgresPrograms, find_postgres, find_valkey
from threadline_worker.embedded.server import Place, Server
from threadline_worker.embedded.state import ServerUrls, announce, withdraw
from threadline_worker.embedded.valkey import Valkey

__all__ = ["Servers", "embedded_server_handles", "embedded_servers"]


@dataclass(frozen=True)
class Servers:
    """The two URLs, and handles on those servers that this process itself runs (else None)."""

    urls: ServerUrls
    valkey: Valkey | None = None
    postgres: Postgres | None = None


@dataclass(frozen=True)
class _Wish:
    """What the caller asked for."""

    env: Mapping[str, str]
    durable: bool
    max_connections: int
    on_progress: Callable[[str], None]

    @property
    def given(self) -> ServerUrls:
        return ServerUrls(self.env.get("REDIS_URL", ""), self.env.get("DATABASE_URL", ""))

    def complete(self, urls: ServerUrls) -> ServerUrls:
        return ServerUrls(self.given.redis_url or urls.redis_url, self.given.database_url or urls.database_url)


@dataclass(frozen=True)
class _Programs:
    """What to start; None where the environment names a server already."""

    valkey: Path | None
    postgres: PostgresPrograms | None


@contextlib.contextmanager
def embedded_servers(
    data_dir: Path | None = None,
    *,
    durable: bool = True,
    env: Mapping[str, str] = os.environ,
    on_progress: Callable[[str], None] | None = None,
    max_connections: int = 200,
) -> Iterator[ServerUrls]:
    """Redis and Postgres for the length of the block: those that `env` names, embedded ones for what it does not name.

    data_dir: None for throw-away data; a folder keeps data, password, ports and logs for the next start. When another
    process runs servers for that folder, those are given, and left running at the end.
    durable: False, for tests, is faster and loses data when the machine crashes; Valkey then keeps nothing at all.
    on_progress: gets a sentence before each step that may take a while.
    max_connections: of Postgres.

    EmbeddedUnavailable: no server program runs here; ConfigurationError: THREADLINE_EMBEDDED makes no sense;
    EmbeddedFailed: a server or the folder cannot be used. Each says what to do.

    Turn SIGTERM into an exception (`signal.signal(SIGTERM, lambda *_: sys.exit(143))`) to leave the block in order, as
    Ctrl-C does. A process that is killed leaves no server behind either: the keeper stops them, in order, and removes
    throw-away data. The block may be entered and left in any thread.
    """
    with embedded_server_handles(
        data_dir, durable=durable, env=env, on_progress=on_progress, max_connections=max_connections
    ) as servers:
        yield servers.urls


@contextlib.contextmanager
def embedded_server_handles(
    data_dir: Path | None = None,
    *,
    durable: bool = True,
    env: Mapping[str, str] = os.environ,
    on_progress: Callable[[str], None] | None = None,
    max_connections: int = 200,
) -> Iterator[Servers]:
    """The same as `embedded_servers`, with handles to crash and restart the servers that this process runs."""
    wish = _Wish(env, durable, max_connections, on_progress or (lambda _sentence: None))
    if wish.given.redis_url and wish.given.database_url:
        yield Servers(wish.given)
    elif data_dir is None:
        with _throw_away(wish) as servers:
            yield servers
    else:
        with _kept(data_dir.absolute(), wish) as servers:
            yield servers


@contextlib.contextmanager
def _throw_away(wish: _Wish) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        with _said_clearly("throw-away data"):
            account = account_to_drop_to()
            programs = _find(wish, account)
            place, mode = throw_away_place(account), 0o711 if account else 0o700
            running = stack.enter_context(keeper(throw_away_in=place, mode=mode))
            folder = DataFolder(running.made_folder, running.made_folder, account)
            servers = _start(running, folder, programs, wish, Access(secrets.token_hex(16)))
        yield servers


@contextlib.contextmanager
def _kept(path: Path, wish: _Wish) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        with _said_clearly(str(path)):
            open_folder(path)
            held = stack.enter_context(hold_or_find(path))
        if isinstance(held, ServerUrls):
            yield Servers(wish.complete(held))
            return
        with _said_clearly(str(path)):
            folder = data_place(path)
            programs = _find(wish, folder.account)
            access = read_access(path)
            write_access(path, access)  # before initdb uses the password
            running = stack.enter_context(keeper(throw_away_in=None, inherit=[held]))
            servers = _start(running, folder, programs, wish, access)
            _tell(path, servers, access)
        stack.callback(withdraw, path)  # before the servers go
        yield servers


def _tell(path: Path, servers: Servers, access: Access) -> None:
    """Keep the ports for the next start and let others find the servers."""
    own: dict[str, Server] = {}
    if servers.valkey:
        own["redis_url"] = servers.valkey
        access = dataclasses.replace(access, redis_port=servers.valkey.port)
    if servers.postgres:
        own["database_url"] = servers.postgres
        access = dataclasses.replace(access, postgres_port=servers.postgres.port)
    write_access(path, access)
    announce(path, servers.urls, list(own))


def _find(wish: _Wish, account: Account | None) -> _Programs:
    """The programs of both servers before anything is started: what is missing is said at once."""
    return _Programs(
        valkey=None if wish.given.redis_url else find_valkey(wish.env, account, wish.on_progress),
        postgres=None if wish.given.database_url else find_postgres(wish.env, account, wish.on_progress),
    )


def _start(running: Keeper, folder: DataFolder, programs: _Programs, wish: _Wish, access: Access) -> Servers:
    """Start both side by side and wait until both answer."""

    def place(name: str) -> Place:
        return Place(folder.data / name, folder.logs / f"{name}.log", folder.account, wish.on_progress)

    valkey, postgres = None, None
    if programs.valkey:
        valkey = Valkey(
            running,
            place("valkey"),
            program=programs.valkey,
            password=access.password,
            port=access.redis_port,
            durable=wish.durable,
        )
    if programs.postgres:
        postgres = Postgres(
            running,
            place("postgres"),
            programs=programs.postgres,
            password=access.password,
            port=access.postgres_port,
            durable=wish.durable,
            max_connections=wish.max_connections,
        )
    started: list[Server] = [server for server in (valkey, postgres) if server]
    for server in started:
        wish.on_progress(f"Starting {server.label}")
        server.launch()
    for server in started:
        server.await_ready()
    urls = ServerUrls(valkey.url if valkey else "", postgres.url if postgres else "")
    return Servers(wish.complete(urls), valkey, postgres)


@contextlib.contextmanager
def _said_clearly(what: str) -> Iterator[None]:
    """Turn what the system refuses (no right, no room, read-only) into one sentence that says what to do."""
    try:
        yield
    except BackendUnavailable:  # says it already; it is an OSError too
        raise
    except OSError as error:
        subject = f" ({error.filename})" if error.filename else ""
        raise EmbeddedFailed(
            f"The embedded servers cannot use {what}: {error.strerror or error}{subject}; "
            "mend that, choose another folder, or set REDIS_URL and DATABASE_URL."
        ) from error
