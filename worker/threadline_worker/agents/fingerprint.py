"""What of a graph matters to a thread that goes on in it, and one stable word for that: the same in every process.

Names of nodes and what starts them, edges and branches, channels with types and reducers, the fields of input and
context, where it stops for a person; of all graphs within it, too. No addresses, no code, no prompts, no tools.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final, Literal, TypedDict, get_args, get_origin, get_type_hints

from langgraph.pregel import Pregel

from threadline.contract.codec import canonical
from threadline_worker.agents.subgraphs import subgraphs

__all__ = ["Structure", "fingerprint", "structure"]

_DIGITS: Final = 16
_DEPTH: Final = 8


class Node(TypedDict):
    """`triggers` are the channels that start it; `subgraphs` what it runs, by name."""

    triggers: list[str]
    subgraphs: dict[str, Structure]


class Structure(TypedDict):
    """As JSON. `channels` are described by kind, type and reducer; `context` and `input` by their fields."""

    nodes: dict[str, Node]
    edges: list[Any]
    channels: dict[str, list[str]]
    input: Any
    context: Any
    stops: list[list[str]]


def fingerprint(found: Structure) -> str:
    """16 hex digits of a graph's `structure`."""
    return hashlib.sha256(canonical(found)).hexdigest()[:_DIGITS]


def structure(graph: Pregel[Any, Any, Any, Any]) -> Structure:
    """Read a compiled graph; runs nothing of it."""
    return _structure(graph, frozenset())


def _structure(graph: Pregel[Any, Any, Any, Any], around: AbstractSet[int]) -> Structure:
    inside = around | {id(graph)}
    builder = getattr(graph, "builder", None)
    return {
        "nodes": {name: _node(node, inside) for name, node in sorted(graph.nodes.items())},
        "edges": [] if builder is None else _edges(builder),
        "channels": {name: _channel(channel) for name, channel in sorted(graph.channels.items())},
        "input": [_names(graph.input_channels), _fields(getattr(builder, "input_schema", None))],
        "context": _fields(getattr(graph, "context_schema", None)),
        "stops": [_names(graph.interrupt_before_nodes), _names(graph.interrupt_after_nodes)],
    }


def _node(node: Any, around: AbstractSet[int]) -> Node:
    found = subgraphs(node) if len(around) < _DEPTH else {}
    # A graph may contain itself: an agent that calls itself as a tool.
    return {
        "triggers": sorted(node.triggers),
        "subgraphs": {
            name: _structure(graph, around) for name, graph in sorted(found.items()) if id(graph) not in around
        },
    }


def _edges(builder: Any) -> list[Any]:
    plain = [list(edge) for edge in builder.edges]
    joined = [[sorted(starts), end] for starts, end in builder.waiting_edges]
    chosen = [
        [source, name, sorted(map(str, branch.ends.values())) if branch.ends else None]
        for source, branches in builder.branches.items()
        for name, branch in branches.items()
    ]
    return sorted([*plain, *joined, *chosen], key=repr)


def _channel(channel: Any) -> list[str]:
    """Kind, type, reducer. A managed value is a class, or a class with arguments."""
    kind = channel if isinstance(channel, type) else getattr(channel, "cls", type(channel))
    reducer = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
    names = getattr(channel, "names", None)  # of a join: whom it waits for
    waits = [",".join(sorted(map(str, names)))] if isinstance(names, (set, frozenset)) else []
    return [kind.__name__, _type(getattr(channel, "typ", None)), "" if reducer is None else _called(reducer), *waits]


def _fields(schema: Any) -> Any:
    if schema is None:
        return None
    try:
        hints: Mapping[str, Any] = get_type_hints(schema, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are anyone's code; names may be a type checker's only
        hints = getattr(schema, "__annotations__", {})
    return {name: _type(hint) for name, hint in sorted(hints.items())} or _type(schema)


def _type(hint: Any) -> str:
    """A type as a program writes it, without modules: one that is loaded from a file has another name elsewhere."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"Annotated[{', '.join([_type(arguments[0]), *map(_called, arguments[1:])])}]"
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if arguments:
        return f"{_called(origin or hint)}[{', '.join(map(_type, arguments))}]"
    if isinstance(hint, list):  # the parameters of a Callable
        return f"[{', '.join(map(_type, hint))}]"
    return hint if isinstance(hint, str) else _called(hint)


def _called(thing: Any) -> str:
    """A name without an address."""
    if isinstance(thing, functools.partial):
        return _called(thing.func)
    if isinstance(thing, (str, int, float, bool, type(None))):
        return repr(thing)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return name if isinstance(name, str) else type(thing).__qualname__


def _names(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else sorted(names)
