"""Holds one run's graph: what its factory opened is closed when the run is over, in the task that opened it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from threadline.errors import InvalidJob
from threadline_worker.agents.agent import Agent
from threadline_worker.agents.errors import AgentConfigError, FactoryError
from threadline_worker.agents.order import Order

if TYPE_CHECKING:
    from threadline_worker.agents.blueprint import PerRun, Shared
    from threadline_worker.agents.registry import Agents

__all__ = ["Opening"]

log = structlog.get_logger(__name__)

#: How long a factory may take to close what it opened, and again to be cancelled.
_CLOSE_SECONDS = 10.0


class Opening:
    """`ready` becomes the agent, or raises UnknownAgentError, AgentConfigError or InvalidJob."""

    def __init__(self, agents: Agents, name: str, order: Order) -> None:
        self._agents = agents
        self._name = name
        self._order = order
        self._over = asyncio.Event()
        self.ready: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._holder = asyncio.create_task(self._hold(), name=f"graph of {self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self.ready.done() and not self.ready.cancelled()
        self._over.set()
        if opened:
            await asyncio.wait({self._holder}, timeout=_CLOSE_SECONDS)
        if not self._holder.done():
            self._holder.cancel()
            _done, pending = await asyncio.wait({self._holder}, timeout=_CLOSE_SECONDS)
            if pending:
                log.warning("agent.failed", agent=self._name, error="its factory does not let itself be stopped")
        if opened:
            self.ready.exception()  # looked at: whoever did not wait for it will not

    async def _hold(self) -> None:
        try:
            blueprint = await self._agents.load(self._name)
            await self._serve(blueprint)
        except asyncio.CancelledError:
            self.ready.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - passed on to whoever waits for `ready`
            self._fail(error)

    async def _serve(self, blueprint: PerRun | Shared) -> None:
        try:
            async with blueprint.open(self._order) as agent:
                with suppress(asyncio.InvalidStateError):  # nobody waits any more
                    self.ready.set_result(agent)
                await self._over.wait()
        except InvalidJob:
            raise
        except AgentConfigError:
            self._agents.failed(self._name)
            raise
        except (Exception, SystemExit) as error:  # a factory is anyone's code
            self._agents.failed(self._name)
            raise FactoryError(f"agent {self._name} cannot be made: {type(error).__name__}: {error}") from error

    def _fail(self, error: Exception) -> None:
        if self.ready.done():
            log.warning("agent.failed", agent=self._name, error="while it was closed", says=str(error))
        else:
            self.ready.set_exception(error)
