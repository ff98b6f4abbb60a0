"""The agents of this worker by name: loaded when first needed, once, and a broken one fails its own jobs only."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import importlib.util
import inspect
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import structlog
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from pydantic.errors import PydanticUserError

from threadline.errors import ConfigurationError
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.serialise import jsonable

__all__ = ["RESEARCH", "Agent", "Agents", "UnknownAgentError", "parse_agents"]

log = structlog.get_logger(__name__)

RESEARCH = "research"
Graph = Pregel[Any, Any, Any, Any]


class UnknownAgentError(Exception):
    """No agent of this name is configured here."""


@dataclasses.dataclass(frozen=True)
class Agent:
    """A graph that is ready: `result` makes the job's JSON result of its final values."""

    name: str
    graph: Graph
    result: Callable[[Any], Any]

    @property
    def text_input(self) -> bool | None:
        """Whether a str input can become a human message; None if the graph does not say."""
        channels = getattr(self.graph, "channels", None)
        return "messages" in channels if channels else None

    def context(self, user_id: str, job_id: str, thread_id: str) -> Any:
        """The run's context: those of our fields that the graph's context schema has."""
        schema = getattr(self.graph, "context_schema", None)
        if schema is None:
            return None
        ours = {"user_id": user_id, "job_id": job_id, "thread_id": thread_id}
        known = get_type_hints(schema)
        return {name: value for name, value in ours.items() if name in known} or None

    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the graph's input."""
        try:
            return self.graph.get_input_jsonschema()
        except PydanticUserError:  # a state that pydantic cannot describe: before Python 3.12, typing's TypedDict
            schema = getattr(getattr(self.graph, "builder", None), "input_schema", None)
            return {"type": "object", "properties": {name: {} for name in get_type_hints(schema)} if schema else {}}


class Agents:
    """`research` and those of THREADLINE_AGENTS. Raises ConfigurationError for a value that cannot be read."""

    def __init__(self, configured: str, env: Mapping[str, str], folder: Path | None = None) -> None:
        self._env = env
        self._sources = parse_agents(configured, folder or Path.cwd())
        self._loading: dict[str, asyncio.Task[Agent]] = {}

    @property
    def names(self) -> list[str]:
        """All names, `research` first unless it is replaced."""
        return [RESEARCH, *(name for name in self._sources if name != RESEARCH)]

    def registered(self) -> dict[str, dict[str, Any]]:
        """What the workers table holds: for what is not loaded, nothing is known about its input."""
        known: dict[str, dict[str, Any]] = {name: {"text_input": None} for name in self.names}
        if RESEARCH not in self._sources:
            known[RESEARCH] = {"text_input": True}
        return known

    async def load(self, name: str) -> Agent:
        """The agent, loaded once. Raises UnknownAgentError, AgentConfigError (tried again at the next job)."""
        if name not in self.names:
            raise UnknownAgentError(f"this worker runs {', '.join(self.names)}; {name!r} is not configured")
        task = self._loading.get(name)
        if task is None or (task.done() and task.exception() is not None):
            task = self._loading[name] = asyncio.create_task(self._load(name), name=f"load {name}")
        # Shielded: a cancelled job must not cancel the load that its neighbours wait for.
        return await asyncio.shield(task)

    async def _load(self, name: str) -> Agent:
        started = time.monotonic()
        try:
            if name == RESEARCH and RESEARCH not in self._sources:
                agent = await asyncio.to_thread(self._research)
            else:
                agent = Agent(name, await _resolve(await asyncio.to_thread(_attribute, self._sources[name])), jsonable)
        except AgentConfigError as error:
            log.warning("agent.failed", agent=name, error=str(error))
            raise
        except (Exception, SystemExit) as error:  # an agent's module is anyone's code: its failure is its own
            log.warning("agent.failed", agent=name, exc_info=True)
            raise AgentConfigError(f"agent {name} cannot be loaded: {type(error).__name__}: {error}") from error
        log.info("agent.loaded", agent=name, seconds=round(time.monotonic() - started, 2))
        return agent

    def _research(self) -> Agent:
        # Imported here: deepagents takes 0.5 to 2.8 s (findings.md).
        from threadline_worker.agents.research.graph import build_research  # noqa: PLC0415
        from threadline_worker.agents.research.result import research_result  # noqa: PLC0415
        from threadline_worker.agents.research.settings import ResearchSettings  # noqa: PLC0415

        def result(values: Any) -> Any:
            found = research_result(values)
            for citation in found.removed_citations:
                log.warning("citation.removed", citation=citation)
            return jsonable(found.data)

        return Agent(RESEARCH, build_research(ResearchSettings.from_env(self._env)), result)


def parse_agents(configured: str, folder: Path) -> dict[str, str]:
    """Read THREADLINE_AGENTS: a langgraph.json (its `graphs`), or `name=module:attr,…`, as name → `where:attr`."""
    text = configured.strip()
    if not text:
        return {}
    if text.endswith(".json"):
        return _langgraph_json((folder / text).resolve())
    sources = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, source = part.partition("=")
        if not (equals and name.strip() and ":" in source):
            raise ConfigurationError(f"THREADLINE_AGENTS: {part!r} is not name=module:attr, nor a langgraph.json")
        sources[name.strip()] = source.strip()
    return sources


def _langgraph_json(path: Path) -> dict[str, str]:
    try:
        graphs = json.loads(path.read_text(encoding="utf-8"))["graphs"]
    except FileNotFoundError as error:
        raise ConfigurationError(f"THREADLINE_AGENTS: there is no file {path}") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigurationError(f"THREADLINE_AGENTS: {path} is not a langgraph.json with `graphs`: {error}") from error
    sources = {}
    for name, entry in graphs.items():
        source = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(source, str) or ":" not in source:
            raise ConfigurationError(f"THREADLINE_AGENTS: {path}: graph {name!r} is not 'path/to/file.py:attr'")
        module, _, attribute = source.rpartition(":")
        file = module.endswith(".py") or "/" in module
        sources[name] = f"{(path.parent / module).resolve()}:{attribute}" if file else source
    return sources


def _attribute(source: str) -> Any:
    """Import `module:attr` or `/path/file.py:attr`."""
    where, _, attribute = source.rpartition(":")
    if where.endswith(".py"):
        path = Path(where)
        name = f"threadline_agent_{path.stem}_{abs(hash(where)):x}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise AgentConfigError(f"there is no Python file {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    found = module
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


async def _resolve(value: Any) -> Graph:
    """A compiled graph of a compiled graph, a StateGraph, or a function (of nothing or a config) that makes one."""
    if isinstance(value, StateGraph):
        return value.compile()
    if isinstance(value, Pregel):
        return value
    if callable(value):
        made = value({}) if _wants_config(value) else value()
        return await _resolve(await made if inspect.isawaitable(made) else made)
    raise AgentConfigError(f"a {type(value).__name__} is no graph: give a StateGraph, a compiled graph or a function")


def _wants_config(function: Callable[..., Any]) -> bool:
    required = inspect.Parameter.empty
    parameters = inspect.signature(function).parameters.values()
    return any(
        parameter.default is required and parameter.kind <= parameter.POSITIONAL_OR_KEYWORD for parameter in parameters
    )
