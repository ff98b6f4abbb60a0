"""What `threadline doctor` asks of the worker half: each agent is really loaded, and a failure says what to do."""

from __future__ import annotations

import asyncio
import os

from threadline.errors import ConfigurationError, InvalidJob
from threadline_worker.agents.errors import AgentConfigError, FactoryError
from threadline_worker.agents.registry import RESEARCH, Agents
from threadline_worker.telemetry.logs import configure_logs
from threadline_worker.telemetry.traces import missing_extra, wanted

__all__ = ["check_agents"]

#: name, level (ok, warn, fail), what was seen, what to do
Finding = tuple[str, str, str, str]


def check_agents() -> list[Finding]:
    """Load every agent that a worker with this environment would run."""
    configure_logs("error")
    try:
        agents = Agents(os.environ.get("THREADLINE_AGENTS", ""), os.environ)
    except ConfigurationError as error:
        return [("agents", "fail", str(error), "correct THREADLINE_AGENTS")]
    return [*_check_traces(), *asyncio.run(_check(agents))]


def _check_traces() -> list[Finding]:
    """Nothing to say where nobody asks for traces."""
    if (asked := wanted(os.environ)) is None:
        return []
    if (problem := missing_extra(os.environ)) is not None:
        return [("traces", "warn", problem, "mend it where the workers run; jobs run all the same")]
    return [("traces", "ok", f"asked for by {asked}", "")]


async def _check(agents: Agents) -> list[Finding]:
    found = [await _check_one(agents, name) for name in agents.names]
    if missing := agents.missing_packages():
        seen = f"langgraph.json asks for {', '.join(missing)}, which is not installed"
        found.append(("agents' packages", "warn", seen, "install it where the workers run"))
    if missing := agents.missing_types():
        seen = f"THREADLINE_MSGPACK_TYPES names {', '.join(missing)}, which cannot be imported"
        found.append(("agents' types", "warn", seen, "correct it: such an object comes back as plain data"))
    return found


async def _check_one(agents: Agents, name: str) -> Finding:
    try:
        async with agents.opening(name) as opening:
            await opening.ready
    except (FactoryError, InvalidJob) as error:
        advice = "made for no run in particular it fails: see whether it needs a configurable or context that jobs give"
        return (f"agent {name}", "warn", str(error), advice)
    except AgentConfigError as error:
        # The built-in agent is there whether it is wanted or not: not configuring it is no fault.
        unused = name == RESEARCH and not os.environ.get("THREADLINE_MODEL")
        advice = "its jobs fail until this is mended" + ("; leave it if nobody enqueues for it" if unused else "")
        return (f"agent {name}", "warn" if unused else "fail", str(error), advice)
    return (f"agent {name}", "ok", "loads", "")
