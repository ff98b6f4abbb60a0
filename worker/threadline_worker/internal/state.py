"""A thread's state at its head or at a checkpoint, read without holding the thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from threadline_worker.internal.scope import Scope
from threadline_worker.serialise import jsonable

__all__ = ["state"]


async def state(scope: Scope, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, `next`, `interrupts`, `checkpoint_id`, `created_at`; empty values for a thread that has not begun.

    At the head it is how things stand: with what finished tasks of the step under way have written. Raises InvalidJob
    (unknown checkpoint), CheckpointsAway.
    """
    saver = scope.saver()
    await scope.check_known(saver, arguments["checkpoint_id"])
    found = await scope.graph(saver).aget_state(scope.at(arguments["checkpoint_id"]))
    return {
        "values": jsonable(found.values),
        "next": list(found.next),
        "interrupts": jsonable(found.interrupts),
        "checkpoint_id": found.config["configurable"].get("checkpoint_id"),
        "created_at": found.created_at,
    }
