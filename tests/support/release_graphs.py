"""One agent as two releases have it: the later ones lack a node, a channel, or what a subgraph or a subagent had."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send, interrupt

__all__ = ["chain", "compatible", "fan", "gone", "helper", "original", "within"]


class Said(TypedDict):
    """`notes` is what a later release may lack."""

    said: Annotated[list[str], operator.add]
    notes: str


class Less(TypedDict):
    """Without `notes`."""

    said: Annotated[list[str], operator.add]


def _node(name: str, schema: Any) -> Any:
    def plain(_state: Any) -> dict[str, Any]:
        noted = {"notes": name} if schema is Said else {}
        return {"said": [name], **noted}

    def ask(_state: Any) -> dict[str, Any]:
        return {"said": [f"{name}={interrupt('may I?')}"]}

    def fail(_state: Any) -> dict[str, Any]:
        folder = os.environ.get("TEST_GATES")
        if folder is None or (Path(folder) / "broken").exists():
            raise ValueError(name)
        return {"said": [name]}

    return {"ask": ask, "fail": fail}.get(name, plain)


def chain(*names: str, schema: Any = Said, **nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """One node after another: `ask` asks a person, `fail` fails as long as $TEST_GATES/broken is there, others note.

    `nodes` are graphs (or anything) to stand for some of the names.
    """
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(schema)
    for name in names:
        graph.add_node(name, nodes.get(name) or _node(name, schema))
    for one, other in zip((START, *names), (*names, END), strict=True):
        graph.add_edge(one, other)
    return graph


def within(*names: str, **nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """A subgraph `part` of these nodes, between `first` and `last`."""
    return chain("first", "part", "last", part=chain(*names, **nodes).compile())


def fan(worker: str, *, joined: Sequence[str] = ()) -> StateGraph[Any, Any, Any, Any]:
    """Two tasks sent to `worker`; `last` waits for all of `joined`."""

    def begin(_state: Any) -> list[Send]:
        return [Send(worker, {}), Send(worker, {})]

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(Less)
    graph.add_node("first", _node("first", Less))
    graph.add_node("beside", _node("beside", Less))
    graph.add_node(worker, _node("fail", Less))
    graph.add_node("last", _node("last", Less))
    graph.add_edge(START, "first")
    graph.add_edge(START, "beside")
    graph.add_conditional_edges("first", begin, [worker])
    if joined:
        graph.add_edge(list(joined), "last")
    return graph


def helper(*names: str) -> StateGraph[Any, Any, Any, Any]:
    """An agent whose tool calls another one, made of these nodes, as deepagents does."""
    helpers = {"helper": chain(*names).compile()}

    @tool
    def delegate(what: str) -> str:
        """Let somebody else do it."""
        return str(helpers["helper"].invoke({"said": [what]})["said"])

    def model(state: MessagesState) -> dict[str, Any]:
        if len(state["messages"]) > 1:
            return {"messages": [AIMessage("done")]}
        call = {"name": "delegate", "args": {"what": "w"}, "id": "c"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([delegate]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    graph.add_edge("tools", "model")
    return graph


original = chain("first", "fail", "ask", "last")
compatible = chain("first", "more", "fail", "ask", "last")
gone = chain("first", "last")
