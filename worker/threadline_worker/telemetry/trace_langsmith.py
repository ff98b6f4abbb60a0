"""LangSmith's own client sends what it records; at the end it gets a moment for the rest, and never holds the worker.

It is switched on by its own variables (LANGSMITH_TRACING, …) and works within LangChain. Its threads are no daemons,
and end only when all is sent or given up: a LangSmith that does not answer would keep a drained worker for minutes.
"""

from __future__ import annotations

import sys
from typing import Any

from threadline_worker.telemetry.last_words import at_most

__all__ = ["flush_langsmith", "langsmith_in_use"]


def langsmith_in_use() -> bool:
    """Whether anything was recorded in this process."""
    return _client() is not None


async def flush_langsmith(limit: float) -> None:
    """Send what is left, for at most so many seconds."""
    client = _client()
    if client is None:
        return
    # Its own limit does not hold for all that it does.
    await at_most(limit, lambda: client.flush(timeout=limit), "last runs")


def _client() -> Any:
    """LangChain's cached client; made when the first run is recorded. Nothing is imported for the question."""
    return getattr(sys.modules.get("langsmith.run_trees"), "_CLIENT", None)
