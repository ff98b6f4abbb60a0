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
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Nursling"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.nursery_imports"])


class Nursling:
    """`threadline …` with this environment; the interface of `subprocess.Popen` as far as tests need it."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]) -> None:
        reading, writing = os.pipe()
        self.stderr: TextIO = os.fdopen(reading, encoding="utf-8", errors="replace")
        self._process = _context.Process(target=_run, args=(list(arguments), env, _Duplicate(writing)))
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


def _run(arguments: list[str], env: dict[str, str], stderr: _Duplicate) -> None:
    stderr.over(2)
    # Those inherited still have the seats of the files that were theirs.
    sys.stdout, sys.stderr = Path(os.devnull).open("w"), os.fdopen(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environ.update({"LANGGRAPH_STRICT_MSGPACK": "true", **env})  # as `import threadline_worker` does
    for folder in reversed(list(filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))):
        if folder not in sys.path:
            sys.path.insert(0, folder)
        if (custom := Path(folder, "sitecustomize.py")).exists():  # as an interpreter does that starts anew
            runpy.run_path(str(custom))
    sys.argv = ["threadline", *arguments]
    from threadline.cli import main

    main()
