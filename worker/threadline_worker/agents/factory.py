"""What a project's attribute may be, and how a graph comes of it, in each of the ways that LangGraph Server knows."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph_sdk.runtime import ServerRuntime

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.order import Order

__all__ = ["Factory", "Graph", "resolve"]

Graph = Pregel[Any, Any, Any, Any]
Kind = Literal["config", "runtime"]
_KINDS: Final[Mapping[str, Kind]] = {"config": "config", "runtime": "runtime"}


@dataclass(frozen=True)
class Factory:
    """Makes a graph for each run: because it wants to know the run, or because what it opens ends with the run."""

    make: Callable[..., Any]
    arguments: Mapping[str, Kind]
    #: The type argument of ServerRuntime[…].
    context_schema: Any = None

    @asynccontextmanager
    async def open(self, order: Order) -> AsyncIterator[Graph]:
        """The graph of one run. Raises what the project's code raises, InvalidJob for a context that does not fit."""
        made = self.make(**{name: self._argument(kind, order) for name, kind in self.arguments.items()})
        made = await made if inspect.isawaitable(made) else made
        if isinstance(made, AbstractAsyncContextManager):
            async with made as graph:
                yield _graph(graph)
        elif isinstance(made, AbstractContextManager):
            with made as graph:
                yield _graph(graph)
        else:
            yield _graph(made)

    def _argument(self, kind: Kind, order: Order) -> Any:
        return order.config() if kind == "config" else order.runtime(self.context_schema)


async def resolve(value: Any) -> Graph | Factory:
    """A graph that all runs share, or what makes one for each. Raises AgentConfigError, and what the project raises.

    A function without arguments is called once, here, unless it gives a context manager.
    """
    if isinstance(value, (StateGraph, Pregel)):
        return _graph(value)
    if isinstance(value, (AbstractAsyncContextManager, AbstractContextManager)) or not callable(value):
        raise AgentConfigError(
            f"a {type(value).__name__} is no graph: give a StateGraph, a compiled graph, or a function that makes one"
        )
    if inspect.isasyncgenfunction(value):
        value = asynccontextmanager(value)
    elif inspect.isgeneratorfunction(value):
        value = contextmanager(value)
    factory = Factory(value, *_arguments(value))
    if factory.arguments:
        return factory
    made = value()
    made = await made if inspect.isawaitable(made) else made
    return factory if isinstance(made, (AbstractAsyncContextManager, AbstractContextManager)) else _graph(made)


def _graph(made: Any) -> Graph:
    if isinstance(made, StateGraph):
        return made.compile()
    if isinstance(made, Pregel):
        return made
    raise AgentConfigError(f"the function gives a {type(made).__name__}, which is no graph")


def _arguments(function: Callable[..., Any]) -> tuple[dict[str, Kind], Any]:
    """What to give to which parameter; and the context schema that a parameter's annotation names."""
    hints = _hints(function)
    found: dict[str, Kind] = {}
    schema = None
    unknown = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        kind = _kind(name, hint := hints.get(name, parameter.annotation))
        if kind is not None:
            found[name] = kind
            schema = next(iter(get_args(hint)), None) if kind == "runtime" and get_origin(hint) else schema
        elif parameter.default is parameter.empty:
            unknown.append(name)
    if len(unknown) == 1 and not found:  # of old, the only argument is the config, whatever its name
        return {unknown[0]: "config"}, None
    if unknown:
        raise AgentConfigError(
            f"the function wants {', '.join(unknown)}; it can have `config: RunnableConfig`, `runtime: ServerRuntime`"
        )
    return found, schema


def _kind(name: str, hint: Any) -> Kind | None:
    """By its annotation, as LangGraph Server does; without one by its name."""
    if hint is ServerRuntime or get_origin(hint) is ServerRuntime:
        return "runtime"
    if hint is RunnableConfig or RunnableConfig in get_args(hint):
        return "config"
    text = hint if isinstance(hint, str) else ""  # names that are imported for type checkers only
    if "Runtime" in text:
        return "runtime"
    return "config" if "RunnableConfig" in text else _KINDS.get(name)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 - its hints
    try:
        return get_type_hints(target)
    except (NameError, TypeError, AttributeError):  # names that only a type checker has; a partial has none
        return {}
