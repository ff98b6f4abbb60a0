"""The graph of `bench.slowdown`: steps of a little work, and clocks read in the first and in the last of them."""

import asyncio
import hashlib
import time
from typing import Any, Final, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from bench import unpublished

__all__ = ["thirty"]

unpublished.install()  # in its worker

#: About a millisecond to hash.
_BLOCK: Final = bytes(700_000)
#: Thread → when its steps began. Not in the state, which is written behind each of them.
_begun: Final[dict[str, list[float]]] = {}


class Steps(TypedDict):
    """`steps` super-steps that hash `blocks` blocks and wait `wait` seconds.

    The last one gives when each of them began and it ended, and the seconds of the process' time by its clock.
    """

    steps: int
    blocks: int
    wait: float
    count: int
    cpu: float
    moments: list[float]


async def _step(state: Steps, config: RunnableConfig) -> dict[str, Any]:
    moments = _begun.setdefault(config["configurable"]["thread_id"], [])
    moments.append(time.monotonic())
    count = state["count"] + 1
    changed: dict[str, Any] = {"count": count, **({"cpu": time.process_time()} if count == 1 else {})}
    for _ in range(state["blocks"]):
        hashlib.sha256(_BLOCK).digest()
    if state["wait"]:
        await asyncio.sleep(state["wait"])
    if count == state["steps"]:
        del _begun[config["configurable"]["thread_id"]]
        changed |= {"cpu": time.process_time() - state["cpu"], "moments": [*moments, time.monotonic()]}
    return changed


thirty = StateGraph(Steps)
thirty.add_node("step", _step)
thirty.add_edge(START, "step")
thirty.add_conditional_edges("step", lambda state: END if state["count"] >= state["steps"] else "step", ["step", END])
