"""An agent that cannot be built says in one sentence what its user has to do about it."""


class AgentConfigError(Exception):
    """The settings of an agent are wrong; the message is one sentence that says what to do."""


class FactoryError(AgentConfigError):
    """A project's function failed to make a graph for one run; its `__cause__` tells whether that may pass."""


class UnknownAgentError(Exception):
    """No agent of this name is configured here."""
