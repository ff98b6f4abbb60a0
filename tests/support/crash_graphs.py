"""Graphs for the crash sweep: parallel tools, a subgraph, a person; each node leaves a line outside all databases."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

__all__ = ["asking", "family"]


class Heard(TypedDict):
    """Who spoke, in the order of the steps."""

    said: Annotated[list[str], operator.add]


def _note(config: RunnableConfig, node: str) -> None:
    with (Path(os.environ["TEST_GATES"]) / "effects").open("a") as effects:
        effects.write(f"{config['configurable']['thread_id']} {node}\n")


def _speaker(name: str) -> Any:
    async def speak(state: Heard, config: RunnableConfig) -> dict[str, Any]:
        _note(config, name)
        return {"said": [f"{name} after {len(state['said'])}"]}

    return speak


_child = StateGraph(Heard)
for _name in ("inner1", "inner2"):
    _child.add_node(_name, _speaker(_name))
_child.add_edge(START, "inner1")
_child.add_edge("inner1", "inner2")
_compiled = _child.compile()


async def _subagent(state: Heard, config: RunnableConfig) -> dict[str, Any]:
    found = await _compiled.ainvoke({"said": []}, config)
    return {"said": [f"subagent: {', '.join(found['said'])}"]}


#: plan → (tool, subagent) → join
family = StateGraph(Heard)
family.add_node("plan", _speaker("plan"))
family.add_node("tool", _speaker("tool"))
family.add_node("subagent", _subagent)
family.add_node("join", _speaker("join"))
family.add_edge(START, "plan")
family.add_edge("plan", "tool")
family.add_edge("plan", "subagent")
family.add_edge("tool", "join")
family.add_edge("subagent", "join")
family.add_edge("join", END)


async def _ask(state: Heard, config: RunnableConfig) -> dict[str, Any]:
    _note(config, "ask")
    return {"said": [interrupt({"question": len(state["said"])})]}


#: plan → (tool, ask a person)
asking = StateGraph(Heard)
asking.add_node("plan", _speaker("plan"))
asking.add_node("tool", _speaker("tool"))
asking.add_node("ask", _ask)
asking.add_edge(START, "plan")
asking.add_edge("plan", "tool")
asking.add_edge("plan", "ask")
asking.add_edge("tool", END)
asking.add_edge("ask", END)
