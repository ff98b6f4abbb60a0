"""Waiting in blocking tests for what another thread or process brings about."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

__all__ = ["interrupt_when", "soon"]


def soon(seen: Callable[[], bool], limit: float = 20) -> None:
    """Ask until it is so; AssertionError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not seen():
        assert time.monotonic() < deadline, f"not within {limit:g} s"
        time.sleep(0.01)


def interrupt_when(seen: Callable[[], bool]) -> threading.Thread:
    """Ctrl-C, once the main thread has come so far."""

    def watch() -> None:
        try:
            soon(seen)
        finally:  # also then: a failure here fails the test, the main thread must not wait for ever
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread
