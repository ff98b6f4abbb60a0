"""The parent's hold on the keeper: whatever is spawned through it ends when this process ends, even by SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any, Final

from threadline_worker.embedded.account import Account
from threadline_worker.embedded.errors import EmbeddedFailed

__all__ = ["Keeper", "Spawn", "keeper"]

_PROGRAM: Final = Path(__file__).with_name("keeper_process.py")
_STOP_SECONDS: Final = 25.0  # above what the keeper itself allows: 10 s for the servers, 10 s for the folder

_KEEPER_GONE: Final = "The keeper of the embedded servers was ended from outside: start again."

# What a server may need of our environment. Not all of it: it holds API keys, and PG* variables steer Postgres.
_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TZ")


@dataclass(frozen=True)
class Spawn:
    """One program to run: as `account` (None: as we are), in `cwd`, output to `log`, ended by the signal `stop`."""

    argv: Sequence[str]
    cwd: Path
    log: Path
    stop: Signals
    account: Account | None


class Keeper:
    """Requests to the keeper process, one at a time; safe to call from several threads.

    `folder` is the throw-away folder that the keeper has made and will remove, or None.
    """

    def __init__(self, control: socket.socket, process_id: int) -> None:
        self._control = control
        self._received = b""
        self._turn = threading.Lock()
        self.pid = process_id
        folder = self._read()["folder"]
        self.folder = Path(folder) if folder else None

    def spawn(self, what: Spawn) -> int:
        """Start a program and return its process id; EmbeddedFailed if the system refuses to run it."""
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        account = what.account
        answer = self._ask(
            do="spawn",
            argv=list(what.argv),
            cwd=str(what.cwd),
            env={**passed_on, "HOME": str(what.cwd), "LC_ALL": "C"},
            log=str(what.log),
            stop=int(what.stop),
            uid=account.uid if account else None,
            gid=account.gid if account else None,
        )
        return int(answer["pid"])

    def exit_code(self, pid: int) -> int | None:
        """None while the process runs; negative: the signal that ended it."""
        code: int | None = self._ask(do="look", pid=pid)["code"]
        return code

    def signal(self, pid: int, number: Signals) -> None:
        """Signal a process that was spawned here; one that has ended is left alone."""
        self._ask(do="signal", pid=pid, signal=int(number))

    @property
    def made_folder(self) -> Path:
        """The throw-away folder; EmbeddedFailed if none was asked for."""
        if self.folder is None:
            raise EmbeddedFailed("The keeper was not asked for a throw-away folder.")
        return self.folder

    def _ask(self, **request: Any) -> dict[str, Any]:
        with self._turn:
            try:
                self._control.sendall(json.dumps(request).encode() + b"\n")
            except OSError:
                raise EmbeddedFailed(_KEEPER_GONE) from None
            return self._read()

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            try:
                piece = self._control.recv(65536)
            except ConnectionError:
                piece = b""
            if not piece:
                raise EmbeddedFailed(_KEEPER_GONE)
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EmbeddedFailed(f"The embedded servers could not be started: {answer['error']}")
        return answer


@contextlib.contextmanager
def keeper(*, throw_away_in: Path | None, mode: int = 0o700, inherit: Sequence[int] = ()) -> Iterator[Keeper]:
    """Run a keeper for the length of the block; at its end everything spawned is stopped.

    throw_away_in: where the keeper makes a folder (with `mode`) and removes it at the end; None: no folder.
    inherit: file descriptors that the keeper and all it spawns hold open: the lock on the data folder.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            options = {
                "control": theirs.fileno(),
                "parent": os.getpid(),
                "throw_away_in": str(throw_away_in) if throw_away_in else None,
                "mode": mode,
                "inherit": list(inherit),
            }
            process = subprocess.Popen(  # noqa: S603 -- our own file
                [sys.executable, "-I", "-S", str(_PROGRAM), json.dumps(options)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *inherit),
                start_new_session=True,  # Ctrl-C ends the foreground group; the servers must wait for our stop
            )
        try:
            yield Keeper(ours, process.pid)
        finally:
            # Hang up: the keeper then stops what still runs and removes the throw-away folder. A mere close would not
            # reach it while a file object made from the socket is alive, as in the traceback of a Ctrl-C.
            with contextlib.suppress(OSError):  # the keeper has gone already
                ours.shutdown(socket.SHUT_RDWR)
            _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
