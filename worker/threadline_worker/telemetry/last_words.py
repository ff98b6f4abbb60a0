"""The last things to be sent or said get a moment, and never hold the worker, whatever a library or a lock does."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["at_most", "end_process"]

#: For a line of the log, and for the lines that wait for a slow reader.
_LAST_LINE_SECONDS = 2.0


async def at_most(limit: float, send: Callable[[], None], name: str) -> None:
    """Call `send` in a thread named `name`; return once it has ended, or after `limit` seconds: it is left behind."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            send()
        finally:
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(over.set)

    threading.Thread(target=run, name=name, daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await over.wait()


def end_process(code: int, say: Callable[[], None] | None = None) -> None:
    """Say why, write what waits, and end this process with that code, within seconds.

    In a thread: what wedges the process may hold the log's own lock, an object's `__str__` for one.
    """

    def last() -> None:
        if say is not None:
            say()
        logging.shutdown()

    try:
        saying = threading.Thread(target=last, name="last line", daemon=True)
        saying.start()
        saying.join(_LAST_LINE_SECONDS)
    finally:  # also where there is no thread to be had
        os._exit(code)
