"""Finds the graphs that a graph's nodes run: those that LangGraph knows of, and the subagents that tools call.

What a node makes only while it runs cannot be found, and is not missed: nothing is said about it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from langchain_core.runnables.base import RunnableBindingBase
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

__all__ = ["subgraphs"]

Graph = Pregel[Any, Any, Any, Any]
#: How deep containers are searched: deepagents keeps its subagents in one dict.
_DEPTH: Final = 3
#: One with more entries is data.
_MOST: Final = 200


def subgraphs(node: Any) -> dict[str, Graph]:
    """Those of one node of `graph.nodes`, by name: a subagent's own, or the graph's."""
    found: dict[str, Graph] = {}
    for name, graph in [*_named(None, node.subgraphs, _DEPTH), *_of_tools(node.bound)]:
        if all(graph is not known for known in found.values()):
            # Two may have one name; in the order of the node, which is that of the program.
            found[name if name not in found else f"{name} {len(found)}"] = graph
    return found


def _of_tools(bound: Any) -> Iterator[tuple[str, Graph]]:
    if isinstance(bound, ToolNode):
        for tool in bound.tools_by_name.values():
            for function in (getattr(tool, "func", None), getattr(tool, "coroutine", None)):
                if inspect.isfunction(function):
                    yield from _named(None, _seen_by(function), _DEPTH)


def _seen_by(function: Callable[..., Any]) -> Iterable[Any]:
    """What a function takes from around it."""
    try:
        names = inspect.getclosurevars(function)
    except ValueError:  # a variable that has no value yet
        return []
    return [dict(names.nonlocals), dict(names.globals)]


def _named(name: str | None, value: Any, depth: int) -> Iterator[tuple[str, Graph]]:
    # By its type, and nothing else is asked: a proxy would run anyone's code to say what it stands for.
    kind = type(value)
    if issubclass(kind, Pregel):
        yield name or value.get_name(), value
    elif issubclass(kind, RunnableBindingBase):  # `.with_config(…)`
        yield from _named(name, value.bound, depth)
    elif depth and issubclass(kind, dict) and len(value) <= _MOST:
        for key, held in value.items():
            # A variable's name is no agent's name; the key of a dict that a tool chooses from is one.
            yield from _named(str(key) if depth < _DEPTH else None, held, depth - 1)
    elif depth and issubclass(kind, (list, tuple)) and len(value) <= _MOST:
        for held in value:
            yield from _named(None, held, depth - 1)
