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


#: A call that was interrupted has ended by then; as a person would press it again.
_PATIENCE_SECONDS = 5.0


class Interruption(threading.Thread):
    """Ctrl-C, once the main thread has come so far; again where it came in the instant before a wait and was not seen.

    `join()` says that it was.
    """

    def __init__(self, seen: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._seen = seen
        self._noticed = threading.Event()

    def run(self) -> None:
        try:
            soon(self._seen)
        finally:  # also then: a failure here fails the test, the main thread must not wait for ever
            os.kill(os.getpid(), signal.SIGINT)
            if not self._noticed.wait(_PATIENCE_SECONDS):
                os.kill(os.getpid(), signal.SIGINT)

    def join(self, timeout: float | None = None) -> None:
        self._noticed.set()
        super().join(timeout)


def interrupt_when(seen: Callable[[], bool]) -> Interruption:
    """One that has begun."""
    thread = Interruption(seen)
    thread.start()
    return thread
