"""The agents of this worker by name: loaded when first needed, once, and a broken one fails its own jobs only."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from threadline_worker.agents.agent import Agent
from threadline_worker.agents.blueprint import PerRun, Shared
from threadline_worker.agents.errors import AgentConfigError, UnknownAgentError
from threadline_worker.agents.factory import Factory, resolve
from threadline_worker.agents.modules import forget, import_attribute, local_modules, missing_types, modified
from threadline_worker.agents.opening import Opening
from threadline_worker.agents.order import Order
from threadline_worker.agents.project import read_project
from threadline_worker.agents.surroundings import Surroundings
from threadline_worker.serialise import jsonable
from threadline_worker.strict_types import SETTING, declared_types

__all__ = ["RESEARCH", "Agent", "Agents", "UnknownAgentError"]

log = structlog.get_logger(__name__)

RESEARCH = "research"


class Agents:
    """`research` and those of THREADLINE_AGENTS. Raises ConfigurationError for a value that cannot be read."""

    def __init__(self, configured: str, env: Mapping[str, str], folder: Path | None = None) -> None:
        self._env = env
        self._types = declared_types(env.get(SETTING, ""))
        self._project = read_project(configured, folder or Path.cwd())
        self._surroundings = Surroundings(self._project)
        self._loading: dict[str, asyncio.Task[PerRun | Shared]] = {}
        #: Of each agent that is loaded: the modules that its load has imported, and when their files were changed.
        self._imported: dict[str, dict[str, int | None]] = {}
        self._torn: set[str] = set()
        #: Of the graphs that all runs share, once they are loaded: what is registered of them.
        self._learnt: dict[str, dict[str, Any]] = {}
        #: Called when `registered` tells more than before.
        self.on_learnt: Callable[[], None] = lambda: None

    @property
    def names(self) -> list[str]:
        """All names, `research` first unless it is replaced."""
        return [RESEARCH, *(name for name in self._project.sources if name != RESEARCH)]

    def registered(self) -> dict[str, dict[str, Any]]:
        """What the workers table holds: for what is not loaded, nothing is known about its input."""
        known: dict[str, dict[str, Any]] = {name: {"text_input": None} for name in self.names}
        if RESEARCH not in self._project.sources:
            known[RESEARCH] = {"text_input": True}
        for name, learnt in self._learnt.items():
            known[name] |= learnt
        return known

    def fingerprint(self, name: str) -> str | None:
        """Of the agent's graph; None while it is not loaded, and where each run has a graph of its own."""
        return self._learnt.get(name, {}).get("fingerprint")

    def opening(self, name: str, order: Order | None = None) -> Opening:
        """One run's agent, to be held with `async with`; its `ready` raises what `load` raises, and FactoryError."""
        return Opening(self, name, order or Order())

    async def load(self, name: str) -> PerRun | Shared:
        """What the name stands for, loaded once.

        Raises UnknownAgentError, AgentConfigError (tried again at the next call).
        """
        if name not in self.names:
            raise UnknownAgentError(f"this worker runs {', '.join(self.names)}; {name!r} is not configured")
        self._mended(name)
        task = self._loading.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            # In no job's context: what a load begins, and says, is not about the job that came first.
            loading = asyncio.create_task(self._load(name), name=f"load {name}", context=contextvars.Context())
            task = self._loading[name] = loading
        # Shielded: a cancelled job must not cancel the load that its neighbours wait for.
        return await asyncio.shield(task)

    def failed(self, name: str) -> None:
        """A loaded agent could not make its graph: once one of its files is changed it is loaded anew."""
        self._torn.add(name)

    def missing_packages(self) -> list[str]:
        """Packages that langgraph.json asks for and nobody has installed."""
        return self._surroundings.missing()

    def missing_types(self) -> list[str]:
        """Classes that THREADLINE_MSGPACK_TYPES names and nobody finds; ask once the agents are loaded."""
        return missing_types(self._types)

    async def _load(self, name: str) -> PerRun | Shared:
        started = time.monotonic()
        before = set(local_modules())
        try:
            env = {**await asyncio.to_thread(self._surroundings.prepare), **self._env}
            if name == RESEARCH and RESEARCH not in self._project.sources:
                loaded: PerRun | Shared = Shared(await asyncio.to_thread(self._research, env))
            else:
                loaded = await self._of_project(name)
        except AgentConfigError as error:
            self._forget_new(before)
            log.warning("agent.failed", agent=name, error=str(error))
            raise
        except (Exception, SystemExit) as error:  # an agent's module is anyone's code: its failure is its own
            self._forget_new(before)
            log.warning("agent.failed", agent=name, exc_info=True)
            told = f"agent {name} cannot be loaded: {type(error).__name__}: {error}{self._surroundings.hint(error)}"
            raise AgentConfigError(told) from error
        self._imported[name] = {module: modified(module) for module in local_modules().keys() - before}
        self._learn(name, loaded)
        seconds = round(time.monotonic() - started, 2)
        log.info("agent.loaded", agent=name, seconds=seconds, fingerprint=self.fingerprint(name))
        return loaded

    def _learn(self, name: str, loaded: PerRun | Shared) -> None:
        self._learnt.pop(name, None)
        if isinstance(loaded, Shared):
            agent = loaded.agent
            self._learnt[name] = {"text_input": agent.text_input, "fingerprint": agent.fingerprint}
        self.on_learnt()

    async def _of_project(self, name: str) -> PerRun | Shared:
        source, paths = self._project.sources[name], self._project.paths
        made = await resolve(await asyncio.to_thread(import_attribute, source, paths))
        if isinstance(made, Factory):
            return PerRun(name, made, self._types)
        return Shared(Agent(name, made, jsonable, self._types))

    def _mended(self, name: str) -> None:
        imported = self._imported.get(name, {})
        if name in self._torn and any(modified(module) != before for module, before in imported.items()):
            forget(imported)
            self._loading.pop(name, None)
            self._torn.discard(name)

    def _forget_new(self, before: set[str]) -> None:
        """A mended file shall be read anew; what agents have that are loaded stays the same for them."""
        kept = {module for imported in self._imported.values() for module in imported}
        forget(local_modules().keys() - before - kept)

    def _research(self, env: Mapping[str, str]) -> Agent:
        # Imported here: deepagents takes 0.5 to 2.8 s (findings.md).
        from threadline_worker.agents.research.graph import build_research  # noqa: PLC0415
        from threadline_worker.agents.research.result import research_result  # noqa: PLC0415
        from threadline_worker.agents.research.settings import ResearchSettings  # noqa: PLC0415

        def result(values: Any) -> Any:
            found = research_result(values)
            for citation in found.removed_citations:
                log.warning("citation.removed", citation=citation)
            return jsonable(found.data)

        return Agent(RESEARCH, build_research(ResearchSettings.from_env(env)), result)
