"""An agent that cannot be built says in one sentence what its user has to do about it."""


class AgentConfigError(Exception):
    """The settings of an agent are wrong; the message is one sentence that says what to do."""
