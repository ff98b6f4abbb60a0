"""Graphs with a past: a conversation in an ordinary and in a delta channel, a branch, a subgraph, and gates.

`$TEST_GATES` is a folder; a node that is about to end stands still while `<thread>.<node>` exists there.
"""

from __future__ import annotations

import asyncio
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages

__all__ = ["diary"]


def _lines(kept: list[str] | None, new: Sequence[list[str]]) -> list[str]:
    return [*(kept or []), *(line for lines in new for line in lines)]


class Diary(TypedDict, total=False):
    """What was said, three ways, and a topic."""

    messages: Annotated[list[AnyMessage], add_messages]
    spoken: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]
    lines: Annotated[list[str], DeltaChannel(_lines, snapshot_frequency=3)]
    seen: Annotated[list[str], operator.add]
    topic: str


class Inner(TypedDict, total=False):
    """What a subgraph keeps."""

    lines: Annotated[list[str], DeltaChannel(_lines)]
    seen: Annotated[list[str], operator.add]


async def _note(name: str, config: RunnableConfig) -> None:
    folder = Path(os.environ["TEST_GATES"])
    folder.mkdir(exist_ok=True)
    thread = config["configurable"]["thread_id"]
    with (folder / "effects").open("a") as effects:
        effects.write(f"{thread} {name}\n")
    while (folder / f"{thread}.{name}").exists():
        await asyncio.sleep(0.01)


async def _first(state: Diary, config: RunnableConfig) -> dict[str, Any]:
    await _note("first", config)
    said = f"first of {len(state.get('messages', []))}"
    return {"messages": [AIMessage(said)], "spoken": [AIMessage(said)], "lines": [said], "seen": ["first"]}


async def _inner(_state: Inner, config: RunnableConfig) -> dict[str, Any]:
    await _note("inner", config)
    return {"lines": ["inner"], "seen": ["inner"]}


async def _last(state: Diary, config: RunnableConfig) -> dict[str, Any]:
    await _note("last", config)
    if state.get("topic") == "broken":
        raise ValueError("a broken topic")
    return {"messages": [AIMessage(f"last about {state.get('topic', 'nothing')}")], "seen": ["last"]}


async def _after_first(_state: Diary, config: RunnableConfig) -> str:
    """A conditional edge: it also runs when a state is updated as `first`, and may then stand at a gate."""
    folder, thread = Path(os.environ["TEST_GATES"]), config["configurable"]["thread_id"]
    if (folder / f"{thread}.edge").exists():
        (folder / f"{thread}.edge-reached").touch()
    while (folder / f"{thread}.edge").exists():
        await asyncio.sleep(0.01)
    return "child"


_child = StateGraph(Inner)
_child.add_node("inner", _inner)
_child.add_edge(START, "inner")
_compiled = _child.compile()


async def _call_child(_state: Diary, config: RunnableConfig) -> dict[str, Any]:
    found = await _compiled.ainvoke({"lines": []}, config)
    return {"lines": found["lines"], "seen": found["seen"]}


#: first → a subgraph → last
diary = StateGraph(Diary)
diary.add_node("first", _first)
diary.add_node("child", _call_child)
diary.add_node("last", _last)
diary.add_edge(START, "first")
diary.add_conditional_edges("first", _after_first, ["child", END])
diary.add_edge("child", "last")
diary.add_edge("last", END)
