"""The graph of the chaos runs: its final state follows from its input alone, and every node leaves lines in a file.

A round is plan → (left, right) → sub (a subgraph of two steps) → join; at the end a person may be asked.
`$CHAOS_FOLDER/effects` is append-only and no database: what is in it nobody can take back. A line: begin or end,
thread, job, node, namespace, super-step, worker, pid, and the true time.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import operator
import os
import resource
import signal
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psutil  # type: ignore[import-untyped]  # it has no stubs here
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from support.chaos_orders import FOLDER, WORKER, take

__all__ = ["Nothing", "Rounds", "chaos", "nothing", "true_time"]

#: What a memory bomb may eat before its process has no more.
_BOMB_BYTES = 160 * 2**20
_BITE_BYTES = 16 * 2**20


class Rounds(TypedDict):
    """`tag` names the job in every entry that it adds to `done`; `poison` is how it takes its worker down, or empty."""

    tag: str
    rounds: int
    poison: str
    asks: bool
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
        await _misbehave()
        await asyncio.sleep(0.02 + digest[0] / 255 * 0.06)
    finally:
        _note("end", config, node)


async def _misbehave() -> None:
    """As the harness orders: any node may be the one."""
    if (seconds := take("block")) is not None:
        time.sleep(float(seconds))
    if (seconds := take("gil")) is not None:
        # PyDLL keeps the GIL for the call: no thread of this process does anything meanwhile, the beat's neither.
        ctypes.PyDLL(None).usleep(int(float(seconds) * 1e6))
    if (seconds := take("hang")) is not None:
        await asyncio.sleep(float(seconds))


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
        if name == "join" and os.environ.get(FOLDER):
            await _take_down(state["poison"])
        return {"done": [f"{state['tag']} {name} {_own(state)}"]}

    return speak


async def _take_down(how: str) -> None:
    """A poisonous job's last words in this process."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "memory":
        used, (_, hard) = psutil.Process().memory_info().vms, resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + _BOMB_BYTES, hard))
        eaten = []
        while True:
            eaten.append(bytearray(_BITE_BYTES))
            await asyncio.sleep(0)  # everybody else in this process lives with what is left


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
    if joined < state["rounds"]:
        return "plan"
    return "ask" if state["asks"] else END


async def _ask(state: Rounds, config: RunnableConfig) -> dict[str, Any]:
    await _worked(config, "ask", state["tag"])
    return {"done": [f"{state['tag']} ask {interrupt({'from': state['tag']})}"]}


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
chaos.add_node("ask", _ask)
chaos.add_conditional_edges("join", _more, ["plan", "ask", END])
chaos.add_edge("ask", END)


class Nothing(TypedDict):
    """Of a job that does nothing, for counting what is left of it."""

    done: bool


nothing = StateGraph(Nothing)
nothing.add_node("do", lambda _state: {"done": True})
nothing.add_edge(START, "do")
nothing.add_edge("do", END)
