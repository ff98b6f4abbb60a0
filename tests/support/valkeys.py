"""Real Valkeys in other shapes than one server: a primary with a replica and Sentinels, and a cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGTERM
from typing import Any

import redis

from support.servers import WHEELS
from threadline_worker.embedded.account import Account, account_to_drop_to, throw_away_place
from threadline_worker.embedded.keeper import Keeper, keeper
from threadline_worker.embedded.programs import find_valkey
from threadline_worker.embedded.server import Place, Server, _free_port

__all__ = ["PRIMARY", "Configured", "Sentinels", "a_cluster", "sentinels"]

PRIMARY = "threadline-primary"
_SENTINEL = """\
bind 127.0.0.1
port {port}
requirepass {password}
sentinel sentinel-pass {password}
sentinel monitor {name} 127.0.0.1 {primary} {quorum}
sentinel auth-user {name} sentinel
sentinel auth-pass {name} {servers}
sentinel down-after-milliseconds {name} 700
sentinel failover-timeout {name} 4000
sentinel parallel-syncs {name} 1
"""
_SERVER = """\
bind 127.0.0.1
port {port}
save ""
appendonly no
maxmemory-policy noeviction
repl-diskless-sync-delay 0
user default off
user app on >{password} ~* &* +@all
user sentinel on >{password} ~* &* +@all
masteruser sentinel
masterauth {password}
"""


class Configured(Server):
    """One process of valkey-server with a configuration of the test's; `PORT` in it is replaced."""

    label = "Valkey"
    stop_signal = SIGTERM

    def __init__(
        self, running: Keeper, place: Place, program: Path, text: str, *, options: Sequence[str] = (), **login: str
    ) -> None:
        super().__init__(running, place, password=login.get("password", ""))
        self._program, self._text, self._options, self._login = program, text, options, login

    @property
    def url(self) -> str:
        """redis:// of this process alone."""
        login = f"{self._login.get('username', '')}:{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def ask(self, *command: str) -> Any:
        """The answer of this process."""
        with redis.Redis.from_url(self.url, socket_timeout=2.0) as client:
            return client.execute_command(*command)

    def _prepare(self) -> None:
        """Nothing."""

    def _refuse_the_hopeless(self) -> None:
        """Nothing."""

    def _command(self) -> Sequence[str | Path]:
        configuration = self._write_private("valkey.conf", self._text.replace("{port}", str(self.port)))
        return [self._program, configuration, *self._options]

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False


class Sentinels:
    """A primary, a replica and Sentinels; `url` is what REDIS_URL would be."""

    def __init__(self, servers: list[Configured], watchers: list[Configured], login: dict[str, str]) -> None:
        self.servers, self.watchers, self._login = servers, watchers, login

    @property
    def url(self) -> str:
        return self.url_of(PRIMARY)

    def url_of(self, name: str, **more: str) -> str:
        """REDIS_URL for a primary of this name."""
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in self.watchers)
        options = "&".join(f"{key}={value}" for key, value in {**self._login, **more}.items() if key.startswith("sen"))
        return f"redis+sentinel://app:{self._login['password']}@{hosts}/{name}/1?{options}"

    def primary(self) -> Configured:
        """Who is it, as the first Sentinel says?"""
        _, port = self.watchers[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY)
        return next(server for server in self.servers if server.port == int(port))


@contextlib.contextmanager
def sentinels(watchers: int = 1) -> Iterator[Sentinels]:
    """Up once the replica is in step and every Sentinel knows it and the others."""
    with _launching() as launch:
        secret, own = secrets.token_hex(8), secrets.token_hex(8)
        text = _SERVER.replace("{password}", secret)
        first = launch("first", text, username="app", password=secret)
        second = launch("second", text + f"replicaof 127.0.0.1 {first.port}\n", username="app", password=secret)
        settings = {"name": PRIMARY, "primary": first.port, "quorum": watchers // 2 + 1, "servers": secret}
        told = _SENTINEL.format(port="{port}", password=own, **settings)
        watching = [launch(f"s{n}", told, options=["--sentinel"], password=own) for n in range(watchers)]
        _until(lambda: first.ask("WAIT", "1", "100") == 1)
        for watcher in watching:
            _until(lambda asked=watcher: _knows(asked, watchers))
        yield Sentinels([first, second], watching, {"password": secret, "sentinel_password": own})


@contextlib.contextmanager
def a_cluster(nodes: int) -> Iterator[list[Configured]]:
    """A Redis Cluster of primaries that share the slots; up once each says that the cluster is."""
    with _launching() as launch:
        text = 'bind 127.0.0.1\nport {port}\nsave ""\ncluster-enabled yes\ncluster-port {bus}\n'
        buses = [_free_port() for _ in range(nodes)]  # by default 10,000 above the port, which may be too high
        members = [launch(f"n{n}", text.replace("{bus}", str(bus))) for n, bus in enumerate(buses)]
        each = 16_384 // nodes
        for n, member in enumerate(members):
            last = 16_383 if n == nodes - 1 else (n + 1) * each - 1
            member.ask("CLUSTER", "ADDSLOTSRANGE", str(n * each), str(last))
            member.ask("CLUSTER", "MEET", "127.0.0.1", str(members[0].port), str(buses[0]))
        for member in members:
            _until(lambda asked=member: b"cluster_state:ok" in _raw(asked))
        yield members


def _raw(member: Configured) -> bytes:
    answer = member.ask("CLUSTER", "INFO")
    return answer if isinstance(answer, bytes) else f"cluster_state:{answer['cluster_state']}".encode()


def _knows(watcher: Configured, watchers: int) -> bool:
    state = watcher.ask("SENTINEL", "MASTER", PRIMARY)
    told = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
    seen = {_text(key): _text(value) for key, value in told.items()}
    return (int(seen["num-slaves"]), int(seen["num-other-sentinels"])) == (1, watchers - 1)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _until(look: Any, limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not look():
        assert time.monotonic() < deadline, "the servers did not find each other"
        time.sleep(0.02)


@contextlib.contextmanager
def _launching() -> Iterator[Any]:
    account: Account | None = account_to_drop_to()
    program = find_valkey({**WHEELS, "PATH": os.environ["PATH"]}, account, lambda _sentence: None)
    with keeper(throw_away_in=throw_away_place(account), mode=0o711 if account else 0o700) as running:
        folder = running.made_folder

        def launch(name: str, text: str, *, options: Sequence[str] = (), **login: str) -> Configured:
            place = Place(folder / name, folder / f"{name}.log", account, lambda _sentence: None)
            server = Configured(running, place, program, text, options=options, **login)
            server.start()
            return server

        yield launch
