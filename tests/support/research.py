"""Runs of the research agent for tests: a small corpus, and a run as the worker makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from threadline_worker.agents.research.settings import ResearchSettings

DOCUMENTS = {
    "pool.md": """# Weaver Pool

## Opening

Weaver opens its connections in the background, so that starting a service never waits for the database. The pool keeps
between four and twenty connections, and it closes those that were idle for ten minutes.

## Installation

Run `pip install weaver-pool` to get it.

## Example

```python
from weaver import Pool

pool = Pool(size=4)
pool.open()
```
""",
    "timeouts.md": """# Weaver Timeouts

A request for a connection fails after thirty seconds when the pool is exhausted. Weaver raises `PoolTimeout` then, and
the message names the query that held the oldest connection.
""",
    "guide/other.txt": """Spindle also has a pool of connections. Its pool is fixed in size and never shrinks.

Looms are tended at night by people who like the quiet.
""",
}


def write_corpus(folder: Path) -> Path:
    """Write the small corpus."""
    for name, text in DOCUMENTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def offline_settings(folder: Path) -> ResearchSettings:
    """Give settings of the offline agent over the small corpus, all below ``folder``."""
    return ResearchSettings(model="offline", corpus=write_corpus(folder / "corpus"), cache_dir=folder / "cache")


async def run(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    question: str | None,
    *,
    thread: str = "t",
    user: str = "user@example.org",
    stop_after: int | None = None,
) -> list[dict[str, Any]]:
    """Run a job as the worker does and give its stream; None goes on from the last checkpoint.

    ``stop_after`` abandons the run after so many checkpoints, those of subagents included, as a killed worker does.
    """
    given = None if question is None else {"messages": [{"role": "user", "content": question}]}
    stream: Any = graph.astream(
        given,
        {"configurable": {"thread_id": thread}, "recursion_limit": 200},
        context={"user_id": user, "job_id": "j", "thread_id": thread},
        stream_mode=["updates", "messages", "checkpoints"],
        subgraphs=True,
        version="v2",
        durability="sync",
    )
    parts: list[dict[str, Any]] = []
    try:
        async for part in stream:
            parts.append(part)
            checkpoints = sum(part["type"] == "checkpoints" for part in parts)
            if stop_after is not None and checkpoints >= stop_after:
                break
    finally:
        await stream.aclose()
    return parts


async def values_of(graph: CompiledStateGraph[Any, Any, Any, Any], thread: str = "t") -> dict[str, Any]:
    """Give a thread's state."""
    return dict((await graph.aget_state({"configurable": {"thread_id": thread}})).values)
