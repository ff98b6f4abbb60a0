"""Decides, with the claim held: start | resume | finished | waiting | superseded | changed (R2).

The thread's head and `state.tasks` decide, never `state.next`: a task whose writes were saved but whose super-step
was not committed is missing in `next` and stands in `tasks`. Neither has tasks of nodes that the graph no longer has:
what it lacks is looked for first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, StateSnapshot

from threadline_worker.answers import Answers

__all__ = ["Decision", "decide", "unfinished"]

Graph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True)
class Decision:
    """`checkpoint_id` and `step` are the head's (None, -2 for a new thread); `values` are set for `finished`.

    `gone` is what the thread needs and the graph lacks; set for `changed`.
    `answers` are those of a resume job that no task has taken yet; set for its `start`.
    """

    action: Literal["start", "resume", "finished", "waiting", "superseded", "changed"]
    checkpoint_id: str | None = None
    step: int = -2
    interrupts: tuple[Interrupt, ...] = ()
    values: Any = None
    answers: dict[str, Any] | None = None
    gone: tuple[str, ...] = ()


async def _nothing() -> list[str]:
    return []


async def decide(
    graph: Graph,
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    job_id: str,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    answers: Answers | None = None,
    gone: Callable[[], Awaitable[list[str]]] = _nothing,
) -> Decision:
    """Look at the head of the thread. Reads only. `before` and `after` name the nodes at which the job shall wait.

    `answers` are those that a resume job carries, without what tasks have taken already. `gone` says what the thread
    needs and the graph lacks; it is asked wherever the job would go on in the thread, and not for a new start.
    """
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    head = await saver.aget_tuple(config)
    if head is None:
        return Decision("start")
    checkpoint_id = str(head.config["configurable"]["checkpoint_id"])
    step = int(head.metadata.get("step", -1))
    here = Decision("start", checkpoint_id, step)
    ours = head.metadata.get("job_id") == job_id
    if not ours and await _was_applied(saver, thread_id, job_id):
        return replace(here, action="superseded")
    if not ours and answers is None:
        return here
    if lost := await gone():
        return replace(here, action="changed", gone=tuple(lost))
    if not ours and answers is not None:
        return await _answered(graph, config, here, answers)
    return await _continued(graph, config, here, before, after)


async def _continued(
    graph: Graph, config: RunnableConfig, here: Decision, before: Sequence[str], after: Sequence[str]
) -> Decision:
    """A job whose own checkpoint is the head."""
    state = await graph.aget_state(config)
    if not state.tasks:
        return replace(here, action="finished", values=state.values)
    if state.interrupts or await _at_breakpoint(graph, state, before, after):
        return replace(here, action="waiting", interrupts=tuple(state.interrupts))
    return replace(here, action="resume")


async def _was_applied(saver: BaseCheckpointSaver[Any], thread_id: str, job_id: str) -> bool:
    """Whether a job that is not the head's was there: then the thread went on without it; else it never began."""
    root: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    async with aclosing(saver.alist(root, filter={"job_id": job_id}, limit=1)) as found:  # type: ignore[type-var]  # a generator
        return [True async for _earlier in found] != []


async def _answered(graph: Graph, config: RunnableConfig, start: Decision, answers: Answers) -> Decision:
    """A resume job whose first super-step is not committed: its answers stand in pending writes at most.

    An answer that a task has taken is not given again: a task that asks twice would take it as the second answer.
    """
    state = await graph.aget_state(config)
    open_ = {asked.id for asked in state.interrupts}
    left = {asked: value for asked, value in answers.given.items() if asked in open_ and asked not in answers.spent}
    if left or not answers.given:
        return replace(start, answers=left)
    if state.interrupts and not open_ & answers.spent:
        return replace(start, action="waiting", interrupts=tuple(state.interrupts))
    # Nothing is asked; or a subagent has taken its answer and the task above it still shows the old question.
    return replace(start, action="resume")


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
