"""A program that starts real worker processes quickly: it has imported everything, and forks one for each order.

`python -m support.chaos_worker`. Standard input: a JSON line `{"name", "env", "log"}` a worker; standard output:
`{"ready": path of the package}`, then `{"started": name, "pid"}` and `{"ended": pid, "code"}`. A worker has its own
environment, log file and session, and dies with this program. What is first on PYTHONPATH is what runs: mutants, too.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import sys
from typing import Any

import support.chaos_graph  # noqa: F401 - what workers will load
import threadline_worker.signals
from support.chaos_failpoints import install
from threadline.cli import main as threadline

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Until standard input ends."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    gc.freeze()
    _say({"ready": threadline_worker.__file__})
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    rest = b""
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if wake in ready:
            os.read(wake, 4096)
            _reap()
        if 0 in ready:
            piece = os.read(0, 65_536)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                _fork(json.loads(line))


def _fork(order: dict[str, Any]) -> None:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        _say({"started": order["name"], "pid": pid})
        return
    code = 1
    try:
        _become_worker(order, parent)
        threadline()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        # Not sys.exit: what this program would do at its own end is none of the worker's business.
        sys.stderr.flush()
        os._exit(code)


def _become_worker(order: dict[str, Any], parent: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.environ.clear()
    os.environ.update(order["env"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    for old, new in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(old, new)
    sys.argv = ["threadline", "worker"]
    install()


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(line: dict[str, Any]) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
