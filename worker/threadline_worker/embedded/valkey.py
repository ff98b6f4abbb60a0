"""A real Valkey that only this machine reaches, with a password, and that never evicts a key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM
from typing import ClassVar, Final

import redis

from threadline_worker.embedded.keeper import Keeper
from threadline_worker.embedded.server import Place, Server

__all__ = ["Valkey", "valkey_answers"]

# The password stands in this file and not on the command line, which every user of the machine can read.
_CONFIGURATION: Final = """\
bind 127.0.0.1
port {port}
requirepass {password}
daemonize no
dir ./
save ""
appendonly {appendonly}
appendfsync everysec
maxmemory-policy noeviction
"""


def valkey_answers(url: str) -> bool:
    """Whether the server at `url` accepts its password and answers PING within 2 s."""
    with redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


class Valkey(Server):
    """Valkey or Redis from `program`. durable: an append-only file, synced each second; else a restart is empty."""

    label: ClassVar = "Valkey"
    stop_signal: ClassVar = SIGTERM

    def __init__(
        self, keeper: Keeper, place: Place, *, program: Path, password: str, port: int | None, durable: bool
    ) -> None:
        super().__init__(keeper, place, password=password, port=port)
        self._program = program
        self._durable = durable

    @property
    def url(self) -> str:
        """redis:// with the password, database 0."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        """Nothing: the configuration is written with each port that is tried."""

    def _refuse_the_hopeless(self) -> None:
        """Nothing: password and data are always from the same hand."""

    def _command(self) -> Sequence[str | Path]:
        appendonly = "yes" if self._durable else "no"
        text = _CONFIGURATION.format(port=self.port, password=self._password, appendonly=appendonly)
        return [self._program, self._write_private("valkey.conf", text)]

    def _answers(self) -> bool:
        return valkey_answers(self.url)
