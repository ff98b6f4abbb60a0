"""What a name stands for once its module is imported: a graph that all runs share, or what makes one for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from threadline_worker.agents.agent import Agent
from threadline_worker.agents.factory import Factory
from threadline_worker.agents.order import Order
from threadline_worker.serialise import jsonable
from threadline_worker.strict_types import TypeName

__all__ = ["PerRun", "Shared"]


@dataclass(frozen=True)
class Shared:
    """One agent for all."""

    agent: Agent

    @asynccontextmanager
    async def open(self, _order: Order) -> AsyncIterator[Agent]:
        """The agent."""
        yield self.agent


@dataclass(frozen=True)
class PerRun:
    """An agent for each order."""

    name: str
    factory: Factory
    types: frozenset[TypeName]
    result: Callable[[Any], Any] = jsonable

    @asynccontextmanager
    async def open(self, order: Order) -> AsyncIterator[Agent]:
        """The order's agent; raises as `Factory.open`."""
        async with self.factory.open(order) as graph:
            yield Agent(self.name, graph, self.result, self.types)
