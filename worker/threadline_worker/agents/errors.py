"""An agent that cannot be built says in one sentence what its user has to do about it, and none of our secrets."""

from __future__ import annotations

from threadline_worker.telemetry.secrets import without_ours


class AgentConfigError(Exception):
    """The settings of an agent are wrong; the message is one sentence that says what to do.

    It may quote what the agent's own code has raised, and is kept with the job.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_ours(message))


class FactoryError(AgentConfigError):
    """A project's function failed to make a graph for one run; its `__cause__` tells whether that may pass."""


class UnknownAgentError(Exception):
    """No agent of this name is configured here."""
