"""A graph that puts what it is told into every place that a graph can reach, and asks a person in between."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from threadline_worker.once import once

__all__ = ["child", "secretive"]


class Told(TypedDict, total=False):
    """`said` is a scalar, which LangGraph leaves inside the checkpoint's JSON."""

    said: str
    kept: bool
    files: dict[str, Any]
    notes: Annotated[list[str], operator.add]


async def _keep(state: Told, runtime: Runtime[Any]) -> dict[str, Any]:
    said = state["said"]
    get_stream_writer()({"progress": said})
    assert runtime.store is not None
    await runtime.store.aput(("secrets",), "item", {"text": said, "encoding": "utf-8", "content": said})
    found = await runtime.store.aget(("secrets",), "item")
    assert found is not None
    assert runtime.execution_info is not None
    await once(f"effect-{runtime.execution_info.thread_id}", lambda: {"done": said}, in_doubt="run")
    return {"said": f"kept {found.value['text']}", "kept": True, "files": {"/a.txt": {"content": [said]}}}


async def _inner(state: Told) -> dict[str, Any]:
    return {"notes": [f"inner: {state['said']}"]}


child = StateGraph(Told)
child.add_node("inner", _inner)
child.add_edge(START, "inner")
_child = child.compile(checkpointer=True)


async def _subgraph(state: Told, config: RunnableConfig) -> dict[str, Any]:
    found = await _child.ainvoke({"said": state["said"]}, config)
    return {"notes": found["notes"][-1:]}


async def _ask(state: Told) -> dict[str, Any]:
    first = interrupt({"question": f"publish {state['said']}?"})
    second = interrupt(f"really, {first}?")
    if "fail" in second:
        raise ValueError(f"refused: {second}")
    return {"notes": [first, second]}


secretive = StateGraph(Told)
for _name, _node in (("keep", _keep), ("subgraph", _subgraph), ("ask", _ask)):
    secretive.add_node(_name, _node)
secretive.add_edge(START, "keep")
secretive.add_edge("keep", "subgraph")
secretive.add_edge("subgraph", "ask")
secretive.add_edge("ask", END)
