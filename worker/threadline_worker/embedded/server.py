"""One embedded server: started means that it answers to its password; from then on its port stays the same."""

from __future__ import annotations

import os
import re
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from typing import ClassVar, Final

from threadline_worker.embedded.account import Account, give
from threadline_worker.embedded.errors import EmbeddedFailed
from threadline_worker.embedded.keeper import Keeper, Spawn

__all__ = ["Place", "Server"]

_LOOK_SECONDS: Final = 0.02
_LOG_LINES_SHOWN: Final = 12
# A port that another process took first, or the shared memory of a killed Postgres whose last backend is still ending.
_TAKEN_FOR_NOW: Final = re.compile(r"(already|still) in use", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where and as whom a server runs: `home` is its own folder (0700, of `account`), `log` gets its output."""

    home: Path
    log: Path
    account: Account | None
    on_progress: Callable[[str], None]


class Server(ABC):
    """start, stop, kill, freeze and thaw one server that the keeper watches.

    port: the one to try first; None takes a free one. Once the server has answered, its port and `url` never change.
    """

    label: ClassVar[str]
    stop_signal: ClassVar[Signals]

    def __init__(self, keeper: Keeper, place: Place, *, password: str, port: int | None = None) -> None:
        self._keeper = keeper
        self._place = place
        self._password = password
        self._settled = False
        self._log_start = 0
        self.port = port or _free_port()
        self.pid: int | None = None  # the server's own, also after it has ended

    @property
    @abstractmethod
    def url(self) -> str:
        """How clients reach it, password included."""

    def start(self, seconds: float = 60.0) -> None:
        """Start and wait until it answers; EmbeddedFailed with the end of the log if it does not within `seconds`."""
        self.launch()
        self.await_ready(seconds)

    def launch(self) -> None:
        """Start without waiting, so that several servers start side by side; `await_ready` must follow."""
        if self.running:
            return
        self._make_home()
        self._prepare()
        self._spawn()

    def await_ready(self, seconds: float = 60.0) -> None:
        """Wait until the server answers; a port taken by somebody else in the meantime is replaced by another."""
        deadline = time.monotonic() + seconds
        while not (self.running and self._answers()):
            ended = not self.running
            if ended and _TAKEN_FOR_NOW.search(self._log_of_this_start()) and time.monotonic() < deadline:
                self._spawn_again()
            elif ended:
                raise EmbeddedFailed(f"{self.label} did not start; {self._log_end()}")
            elif time.monotonic() > deadline:
                self.kill()
                raise EmbeddedFailed(f"{self.label} did not answer within {seconds:.0f} s; {self._log_end()}")
            self._refuse_the_hopeless()
            time.sleep(_LOOK_SECONDS)
        self._settled = True

    @property
    def running(self) -> bool:
        """Whether its process exists."""
        return self.pid is not None and self._keeper.exit_code(self.pid) is None

    def stop(self, how: Signals | None = None, seconds: float = 10.0) -> None:
        """Ask it to end, by its usual signal or by `how`, and wait; killed after `seconds`. It may be started again."""
        self._signal(how or self.stop_signal)
        if not self._gone_within(seconds):
            self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would, and wait until it is gone."""
        self._signal(SIGKILL)
        if not self._gone_within(10.0):
            raise EmbeddedFailed(f"{self.label} (process {self.pid}) did not end after SIGKILL.")

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP): connections stay, nothing answers. Only the main process of Postgres freezes."""
        self._signal(SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(SIGCONT)

    @abstractmethod
    def _prepare(self) -> None:
        """Make its data usable before a start."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The command line that serves on `self.port`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it answers a client that gives the password."""

    @abstractmethod
    def _refuse_the_hopeless(self) -> None:
        """Raise EmbeddedFailed when waiting longer cannot help."""

    def _make_home(self) -> None:
        home = self._place.home
        if not home.is_dir():
            home.mkdir(mode=0o700)
            give(home, self._place.account)

    def _write_private(self, name: str, text: str) -> Path:
        """A file in `home` that only the server's account reads; never written through a link that was put there."""
        path = self._place.home / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        give(path, self._place.account)
        return path

    def _request(self, argv: Sequence[str | Path], stop: Signals, log: Path) -> Spawn:
        return Spawn([str(word) for word in argv], self._place.home, log, stop, self._place.account)

    def _spawn(self) -> None:
        log = self._place.log
        self._log_start = log.stat().st_size if log.exists() else 0
        self.pid = self._keeper.spawn(self._request(self._command(), self.stop_signal, log))

    def _spawn_again(self) -> None:
        """A port that clients know is waited for; one that nobody knows yet is replaced."""
        if self._settled:
            time.sleep(0.1)
        else:
            self.port = _free_port()
        self._spawn()

    def _signal(self, number: Signals) -> None:
        if self.pid is not None:
            self._keeper.signal(self.pid, number)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def _log_of_this_start(self) -> str:
        with self._place.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(self._log_start if self._log_start <= size else 0)
            return file.read().decode(errors="replace")

    def _log_end(self) -> str:
        return log_end(self._place.log, self._log_of_this_start())


def log_end(log: Path, text: str) -> str:
    """The last lines of a log, in words that follow "…;"."""
    lines = text.strip().splitlines()[-_LOG_LINES_SHOWN:]
    return f"its log {log} ends with:\n" + "\n".join(f"  {line}" for line in lines or ["(nothing)"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
