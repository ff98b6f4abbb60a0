"""The graph of the benchmarks of pick-up: steps of so many seconds each, nothing else."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

__all__ = ["slow"]


class Steps(TypedDict):
    """`until` steps of `seconds` each; `done` lists them."""

    done: Annotated[list[int], operator.add]
    until: int
    seconds: float


async def _step(state: Steps) -> dict[str, Any]:
    await asyncio.sleep(state["seconds"])
    return {"done": [len(state["done"])]}


slow = StateGraph(Steps)
slow.add_node("step", _step)
slow.add_edge(START, "step")
slow.add_conditional_edges("step", lambda state: END if len(state["done"]) >= state["until"] else "step", ["step", END])
