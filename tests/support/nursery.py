"""Worker processes without their imports: each is forked from one process that has imported everything a worker needs.

They are processes like any other: own pid, own signals, own connections. What starts as a person starts it
(`python -m threadline.cli worker`) is tested in tests/e2e.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

__all__ = ["Nursling", "called", "spoken_to"]

_CLI = "threadline.cli"
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.nursery_imports"])


class Nursling:
    """`threadline …` with this environment; the interface of `subprocess.Popen` as far as tests need it."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]) -> None:
        _start_with_imports()
        reading, writing = os.pipe()
        self.stderr: TextIO = os.fdopen(reading, encoding="utf-8", errors="replace")
        self._process = _context.Process(target=_run, args=(_CLI, list(arguments), env, {2: _Duplicate(writing)}))
        try:
            self._process.start()
        finally:
            os.close(writing)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("threadline", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def called(
    arguments: Sequence[str], env: dict[str, str], *, module: str = _CLI, stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE …` with this environment to its end, as `subprocess.run` gives it; `timeout` in seconds."""
    _start_with_imports()
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile("w+", encoding="utf-8")) for _seat in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        seats = {seat: _Duplicate(file.fileno()) for seat, file in enumerate(files)}
        process = _context.Process(target=_run, args=(module, list(arguments), env, seats))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(module, timeout)
        for file in files:
            file.seek(0)
        return subprocess.CompletedProcess([module, *arguments], process.exitcode, files[1].read(), files[2].read())


def spoken_to(module: str, env: dict[str, str]) -> tuple[BaseProcess, int, int]:
    """`python -m MODULE` with this environment; where to write its standard input, and where to read what it says."""
    _start_with_imports()
    (its_input, ours), (theirs, its_output) = os.pipe(), os.pipe()
    process = _context.Process(
        target=_run, args=(module, [], env, {0: _Duplicate(its_input), 1: _Duplicate(its_output)})
    )
    process.start()
    os.close(its_input)
    os.close(its_output)
    return process, ours, theirs


def _start_with_imports() -> None:
    """Start the process that forks, where it finds what it shall import: Python before 3.12.3 forgets our sys.path."""
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if known is not None:
            os.environ["PYTHONPATH"] = known


class _Duplicate:
    """A file descriptor that travels to the new process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __getstate__(self) -> Any:
        return DupFd(self._descriptor)

    def __setstate__(self, state: Any) -> None:
        self._descriptor = state.detach()

    def over(self, descriptor: int) -> None:
        os.dup2(self._descriptor, descriptor)
        os.close(self._descriptor)


def _run(module: str, arguments: list[str], env: dict[str, str], seats: dict[int, _Duplicate]) -> None:
    for seat, file in seats.items():
        file.over(seat)
    # It is silent about what it could not import, and each worker would cost a second more.
    assert "support.nursery_imports" in sys.modules, "nothing was imported before the fork"
    # Those inherited still have the seats of the files that were theirs.
    sys.stdin = _seated(0, "r", seats)
    sys.stdout = _seated(1, "w", seats)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    os.environ.clear()
    os.environ.update({"LANGGRAPH_STRICT_MSGPACK": "true", **env})  # as `import threadline_worker` does
    for folder in reversed(list(filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))):
        if folder not in sys.path:
            sys.path.insert(0, folder)
        if (custom := Path(folder, "sitecustomize.py")).exists():  # as an interpreter does that starts anew
            runpy.run_path(str(custom))
    sys.argv = [module, *arguments]
    if module == _CLI:
        from threadline.cli import main

        main()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _seated(descriptor: int, mode: str, seats: dict[int, _Duplicate]) -> TextIO:
    return os.fdopen(descriptor if descriptor in seats else os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8")
