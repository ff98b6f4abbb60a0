"""The graph of `bench.latency`: events that carry the moment at which they were made, by the monotonic clock."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

__all__ = ["metronome"]


class Beats(TypedDict):
    """`steps` super-steps of ten `custom` events each, about `pause` seconds apart; `made` is when a step returned.

    Pauses are between half and one and a half of it: jobs that began together do not stay in step.
    """

    steps: int
    pause: float
    count: int
    made: float


async def _step(state: Beats) -> dict[str, Any]:
    write = get_stream_writer()
    for _ in range(10):
        await asyncio.sleep(state["pause"] * random.uniform(0.5, 1.5))
        write({"made": time.monotonic()})
    return {"count": state["count"] + 1, "made": time.monotonic()}


metronome = StateGraph(Beats)
metronome.add_node("step", _step)
metronome.add_edge(START, "step")
metronome.add_conditional_edges(
    "step", lambda state: END if state["count"] >= state["steps"] else "step", ["step", END]
)
