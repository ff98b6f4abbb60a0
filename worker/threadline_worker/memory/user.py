"""Whose run this is, as the worker says it; two answers that differ end the run instead of showing another's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.config import get_config
from langgraph.runtime import Runtime

from threadline_worker.agents.errors import AgentConfigError

__all__ = ["user_of_run"]


def user_of_run(runtime: Runtime[Any] | None) -> str:
    """The user id of `config["configurable"]`, or of the run's context where a test or a script gives only that.

    Raises AgentConfigError if neither names one, or if they name two.
    """
    found = {user for user in (_configured(), _of_context(runtime)) if user is not None}
    if len(found) > 1:
        raise AgentConfigError("The run's config and its context name different users; leave user_id to the worker.")
    if not found:
        raise AgentConfigError(
            "The agent needs to know its user: run it with config={'configurable': {'user_id': …}} or context={…}."
        )
    return found.pop()


def _configured() -> str | None:
    try:
        value = get_config().get("configurable", {}).get("user_id")
    except RuntimeError:  # outside of any run
        return None
    return str(value) if value else None


def _of_context(runtime: Runtime[Any] | None) -> str | None:
    context = getattr(runtime, "context", None)
    value = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    return str(value) if value else None
