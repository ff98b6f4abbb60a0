"""The graph of the chaos runs: its final state follows from its input alone, and every node leaves lines in a file.

A round is plan → (left, right) → sub (a subgraph of two steps) → join. `$CHAOS_FOLDER/effects` is append-only and no
database: what is in it nobody can take back. A line: begin or end, thread, job, node, namespace, super-step, worker,
pid, and the true time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import operator
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from support.chaos_orders import FOLDER, WORKER, take

__all__ = ["Rounds", "chaos", "true_time"]


class Rounds(TypedDict):
    """`tag` names the job in every entry that it adds to `done`."""

    tag: str
    rounds: int
    poison: bool
    done: Annotated[list[str], operator.add]


class Inner(TypedDict):
    """The subgraph's own state."""

    tag: str
    inner: Annotated[list[str], operator.add]


def true_time() -> float:
    """Seconds since the epoch, also where `time.time` has been made to lie."""
    return time.clock_gettime(time.CLOCK_REALTIME)


async def _worked(config: RunnableConfig, node: str, tag: str) -> None:
    """The node's effect on the outside world, and the time it takes: 20 to 80 ms, always the same for this node."""
    digest = hashlib.sha256(f"{tag} {node}".encode()).digest()
    _note("begin", config, node)
    try:
        if (seconds := take("block")) is not None:
            time.sleep(float(seconds))
        await asyncio.sleep(0.02 + digest[0] / 255 * 0.06)
    finally:
        _note("end", config, node)


def _note(what: str, config: RunnableConfig, node: str) -> None:
    found = config["metadata"]
    line = {
        "what": what,
        "thread": config["configurable"]["thread_id"],
        "job": config["configurable"].get("job_id"),
        "node": node,
        "ns": str(found["langgraph_checkpoint_ns"]).rpartition("|")[0],
        "step": found["langgraph_step"],
        "worker": os.environ.get(WORKER, ""),
        "pid": os.getpid(),
        "at": true_time(),
    }
    folder = os.environ.get(FOLDER)
    if folder:  # else it is the undisturbed run
        with Path(folder, "effects").open("ab", buffering=0) as effects:  # one write a line
            effects.write(json.dumps(line).encode() + b"\n")


def _own(state: Rounds) -> int:
    return sum(entry.startswith(f"{state['tag']} ") for entry in state["done"])


def _speaker(name: str) -> Any:
    async def speak(state: Rounds, config: RunnableConfig) -> dict[str, Any]:
        await _worked(config, name, state["tag"])
        if state.get("poison") and name == "join" and os.environ.get(FOLDER):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"done": [f"{state['tag']} {name} {_own(state)}"]}

    return speak


def _inner(name: str) -> Any:
    async def speak(state: Inner, config: RunnableConfig) -> dict[str, Any]:
        await _worked(config, name, state["tag"])
        return {"inner": [f"{name}{len(state['inner'])}"]}

    return speak


_child = StateGraph(Inner)
_child.add_node("inner1", _inner("inner1"))
_child.add_node("inner2", _inner("inner2"))
_child.add_edge(START, "inner1")
_child.add_edge("inner1", "inner2")
_child.add_edge("inner2", END)
_compiled = _child.compile()


async def _sub(state: Rounds, config: RunnableConfig) -> dict[str, Any]:
    found = await _compiled.ainvoke({"tag": state["tag"], "inner": []}, config)
    return {"done": [f"{state['tag']} sub {_own(state)} {'+'.join(found['inner'])}"]}


def _more(state: Rounds) -> str:
    joined = sum(entry.startswith(f"{state['tag']} join ") for entry in state["done"])
    return END if joined >= state["rounds"] else "plan"


chaos = StateGraph(Rounds)
for _name in ("plan", "left", "right", "join"):
    chaos.add_node(_name, _speaker(_name))
chaos.add_node("sub", _sub)
chaos.add_edge(START, "plan")
chaos.add_edge("plan", "left")
chaos.add_edge("plan", "right")
chaos.add_edge("left", "sub")
chaos.add_edge("right", "sub")
chaos.add_edge("sub", "join")
chaos.add_conditional_edges("join", _more, ["plan", END])
