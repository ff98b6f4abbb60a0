"""Ends its servers when its parent ends, however the parent ends, and then removes the throw-away folder.

A program of its own, standard library only: `python -I -S keeper_process.py '{"control": FD, …}'`. The parent asks
through a socket, one JSON object a line, one answer each; the end of that socket is the end of the parent. Its end is
noticed also when a fork of the parent keeps the socket open, because then this process gets another parent. Nothing
here hangs on the *thread* that asked, as PR_SET_PDEATHSIG alone would: threads of the parent come and go.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STOP_SECONDS = 10.0  # how long a server may take to end before it is killed
_LOOK_SECONDS = 1.0  # how often to look whether the parent is still there, should its socket not tell
_PR_SET_PDEATHSIG = 1
_KEPT_LOG_BYTES = 5_000_000


class Children:
    """The processes started here: spawn, look, signal, and stop all of them."""

    def __init__(self, inherited: list[int]) -> None:
        self._inherited = inherited
        self._running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}

    def spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start one program in a session of its own; its output is appended to its log."""
        identity: dict[str, Any] = {}
        if request["uid"] is not None:
            identity = {"user": request["uid"], "group": request["gid"], "extra_groups": []}
        log = Path(request["log"])
        if log.exists() and log.stat().st_size > _KEPT_LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            child = subprocess.Popen(  # noqa: S603 -- the programs that programs.py found
                request["argv"],
                cwd=request["cwd"],
                env=request["env"],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
                # The lock on the data folder stays taken until the last server has really gone.
                pass_fds=self._inherited,
                # Safe: this process has one thread. It runs after the change of user, which would clear the setting.
                preexec_fn=_die_with_me(request["stop"]),  # noqa: PLW1509
                **identity,
            )
        finally:
            os.close(descriptor)
        self._running[child.pid] = (child, request["stop"])
        return {"pid": child.pid}

    def look(self, pid: int) -> dict[str, Any]:
        """`code` is None while the process runs, else how it ended (negative: the signal)."""
        return {"code": self._running[pid][0].poll()}

    def signal(self, pid: int, number: int) -> dict[str, Any]:
        """Signal one process; nothing happens if it has ended."""
        self._running[pid][0].send_signal(number)
        return {}

    def stop_all(self) -> None:
        """Ask all to end, at the same time, and kill after STOP_SECONDS those that have not."""
        alive = [(child, stop) for child, stop in self._running.values() if child.poll() is None]
        for child, stop in alive:
            child.send_signal(stop)
            child.send_signal(signal.SIGCONT)  # a frozen one must thaw to hear it
        deadline = time.monotonic() + STOP_SECONDS
        for child, _stop in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            # What it started in its session ends with it, only now: a helper of initdb that is signalled before initdb
            # has let it finish leaves shared memory behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _die_with_me(stop: int) -> Any:
    """On Linux: what makes a child get its stop signal even when this process is killed."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes  # noqa: PLC0415 -- Linux only, and not part of every Python

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return None
    keeper = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, stop)
        if os.getppid() != keeper:
            os._exit(1)

    return tie


def serve(control: socket.socket, parent: int, children: Children) -> None:
    """Answer the parent's requests until it ends or hangs up."""
    received = b""
    while os.getppid() == parent:
        readable, _, _ = select.select([control], [], [], _LOOK_SECONDS)
        if not readable:
            continue
        piece = control.recv(65536)
        if not piece:
            return
        received += piece
        while b"\n" in received:
            line, _, received = received.partition(b"\n")
            control.sendall(json.dumps(_answer(children, json.loads(line))).encode() + b"\n")


def _answer(children: Children, request: dict[str, Any]) -> dict[str, Any]:
    try:
        match request["do"]:
            case "spawn":
                return children.spawn(request)
            case "look":
                return children.look(request["pid"])
            case _:
                return children.signal(request["pid"], request["signal"])
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": str(error)}


def _remove(folder: Path) -> None:
    """Remove a folder although a last process may still write to it for a moment."""
    deadline = time.monotonic() + STOP_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(0.05)


def main() -> None:
    """Make the folder, serve, clean up; the parent reads the folder's name as the first line."""
    options = json.loads(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: sys.exit(0))
    os.umask(0o077)
    children = Children(options["inherit"])
    control = socket.socket(fileno=options["control"])
    folder: Path | None = None
    try:
        greeting: dict[str, str | None] = {"folder": None}
        if options["throw_away_in"] and os.getppid() == options["parent"]:
            try:
                folder = Path(tempfile.mkdtemp(prefix="threadline-", dir=options["throw_away_in"]))
                folder.chmod(options["mode"])
                greeting = {"folder": str(folder)}
            except OSError as error:
                greeting = {"error": str(error)}
        with contextlib.suppress(ConnectionError):  # the parent ended in the middle of a request
            control.sendall(json.dumps(greeting).encode() + b"\n")
            serve(control, options["parent"], children)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        children.stop_all()
        if folder:
            _remove(folder)


if __name__ == "__main__":
    main()
