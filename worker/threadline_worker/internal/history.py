"""A thread's checkpoints, newest first and page by page, read without holding the thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.types import StateSnapshot

from threadline_worker.internal.scope import Scope
from threadline_worker.serialise import jsonable

__all__ = ["history"]


async def history(scope: Scope, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """At most `limit` entries, older than `before`. Raises InvalidJob (unknown checkpoint), CheckpointsAway."""
    saver, before = scope.saver(), arguments["before"]
    await scope.check_known(saver, before)
    found = scope.graph(saver).aget_state_history(
        scope.at(), limit=arguments["limit"], before=None if before is None else scope.at(before)
    )
    return [_entry(snapshot) async for snapshot in found]


def _entry(snapshot: StateSnapshot) -> dict[str, Any]:
    metadata = dict(snapshot.metadata or {})
    return {
        "checkpoint_id": snapshot.config["configurable"]["checkpoint_id"],
        "step": metadata.get("step"),
        "next": list(snapshot.next),
        "created_at": snapshot.created_at,
        "metadata": jsonable(metadata),
    }
