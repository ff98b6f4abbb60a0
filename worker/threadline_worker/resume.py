"""Decides, with the claim held, what to do with a job: start | resume | finished | waiting | superseded (R2).

The thread's head and `state.tasks` decide, never `state.next`: a task whose writes were saved but whose super-step
was not committed is missing in `next` and stands in `tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, StateSnapshot

__all__ = ["Decision", "decide", "unfinished"]

Graph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True)
class Decision:
    """`checkpoint_id` and `step` are the head's (None, -2 for a new thread); `values` are set for `finished`."""

    action: Literal["start", "resume", "finished", "waiting", "superseded"]
    checkpoint_id: str | None = None
    step: int = -2
    interrupts: tuple[Interrupt, ...] = ()
    values: Any = None


async def decide(
    graph: Graph,
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    job_id: str,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> Decision:
    """Look at the head of the thread. Reads only. `before` and `after` name the nodes at which the job shall wait."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    head = await saver.aget_tuple(config)
    if head is None:
        return Decision("start")
    checkpoint_id = str(head.config["configurable"]["checkpoint_id"])
    step = int(head.metadata.get("step", -1))
    if head.metadata.get("job_id") != job_id:
        # This job's input never reached the head. Was it applied before the thread went on without it?
        root: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        async with aclosing(saver.alist(root, filter={"job_id": job_id}, limit=1)) as found:  # type: ignore[type-var]  # a generator
            async for _earlier in found:
                return Decision("superseded", checkpoint_id, step)
        return Decision("start", checkpoint_id, step)
    state = await graph.aget_state(config)
    if not state.tasks:
        return Decision("finished", checkpoint_id, step, values=state.values)
    if state.interrupts or await _at_breakpoint(graph, state, before, after):
        return Decision("waiting", checkpoint_id, step, interrupts=tuple(state.interrupts))
    return Decision("resume", checkpoint_id, step)


async def _at_breakpoint(graph: Graph, state: StateSnapshot, before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether the head is where the job had to stop for a person: going on with None would pass the breakpoint.

    A job never passes a breakpoint of its own (its resume is another job), so its own head there means it had to stop.
    """
    if any(task.name in before for task in state.tasks):
        return True
    if not after or state.parent_config is None:
        return False
    ran = await graph.aget_state(state.parent_config)
    return any(task.name in after for task in ran.tasks)


async def unfinished(graph: Graph, thread_id: str) -> tuple[bool, tuple[Interrupt, ...], Any]:
    """After a run has stopped by itself: whether tasks are left, what they ask a person, and the thread's values."""
    state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
    return bool(state.tasks), tuple(state.interrupts), state.values
