"""Graphs that ask people: once, twice in one node of a subgraph, in two places at once, and at a breakpoint."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

__all__ = ["both", "nested", "paused"]


class Heard(TypedDict):
    """What people said."""

    heard: Annotated[list[str], operator.add]


def _note(config: RunnableConfig, what: str) -> None:
    if folder := os.environ.get("TEST_GATES"):
        Path(folder).mkdir(exist_ok=True)
        with (Path(folder) / "effects").open("a") as effects:
            effects.write(f"{config['configurable']['thread_id']} {what}\n")


def _asker(name: str, *questions: str) -> Any:
    async def ask(_state: Heard, config: RunnableConfig) -> dict[str, Any]:
        answers = [f"{question}={interrupt(question)}" for question in questions]
        _note(config, f"{name}:{','.join(answers)}")
        return {"heard": [f"{name}: {', '.join(answers)}"]}

    return ask


async def _plain(_state: Heard, config: RunnableConfig) -> dict[str, Any]:
    _note(config, "plain")
    return {"heard": ["plain"]}


_child = StateGraph(Heard)
_child.add_node("inner", _asker("inner", "first", "second"))
_child.add_edge(START, "inner")
_compiled = _child.compile()


async def _subagent(_state: Heard, config: RunnableConfig) -> dict[str, Any]:
    found = await _compiled.ainvoke({"heard": []}, config)
    return {"heard": [f"subagent: {found['heard'][0]}"]}


#: plain → a subgraph whose node asks twice → plain
nested = StateGraph(Heard)
nested.add_node("before", _plain)
nested.add_node("subagent", _subagent)
nested.add_node("after", _plain)
nested.add_edge(START, "before")
nested.add_edge("before", "subagent")
nested.add_edge("subagent", "after")
nested.add_edge("after", END)

#: two that ask at once; what is asked may have a NUL in it, which SQL cannot read from JSON
both = StateGraph(Heard)
both.add_node("left", _asker("left", "l"))
both.add_node("right", _asker("right", "r\0"))
both.add_edge(START, "left")
both.add_edge(START, "right")

#: for breakpoints
paused = StateGraph(Heard)
paused.add_node("one", _plain)
paused.add_node("two", _plain)
paused.add_edge(START, "one")
paused.add_edge("one", "two")
paused.add_edge("two", END)
