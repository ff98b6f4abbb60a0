"""LangSmith's own client sends what it records; at the end it gets a moment for the rest, and never holds the worker.

It is switched on by its own variables (LANGSMITH_TRACING, …) and works within LangChain. Its threads are no daemons,
and end only when all is sent or given up: a LangSmith that does not answer would keep a drained worker for minutes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress
from typing import Any

__all__ = ["flush_langsmith", "langsmith_in_use"]


def langsmith_in_use() -> bool:
    """Whether anything was recorded in this process."""
    return _client() is not None


async def flush_langsmith(limit: float) -> None:
    """Send what is left, for at most so many seconds."""
    client = _client()
    if client is None:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def flush() -> None:
        # Its own limit does not hold for all that it does.
        client.flush(timeout=limit)
        with suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=flush, name="last runs", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await over.wait()


def _client() -> Any:
    """LangChain's cached client; made when the first run is recorded. Nothing is imported for the question."""
    return getattr(sys.modules.get("langsmith.run_trees"), "_CLIENT", None)
