"""Every name in Redis and the Postgres schema's name, made in one place from one namespace."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from threadline.errors import ConfigurationError

__all__ = ["DEFAULT_NAMESPACE", "Keys"]

DEFAULT_NAMESPACE: Final = "threadline"
_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Keys(msgspec.Struct, frozen=True):
    """The names of one environment; `namespace` is their first word and the Postgres schema.

    Raises ConfigurationError for a namespace that is not 1-40 of a-z, 0-9 and _, starting with a letter.
    """

    namespace: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigurationError(
                f"THREADLINE_NAMESPACE={self.namespace!r}: use 1-40 of a-z, 0-9 and _, starting with a letter"
            )

    @property
    def schema(self) -> str:
        """The Postgres schema of the ledger and of LangGraph's tables."""
        return self.namespace

    @property
    def queue(self) -> str:
        """Arq's sorted set of waiting messages."""
        return f"{self.namespace}:queue"

    @property
    def control(self) -> str:
        """Pub/sub: `{"cancel": job_id}`."""
        return f"{self.namespace}:control"

    @property
    def wake(self) -> str:
        """Pub/sub, any payload: a message is in the queue. Losing one costs a slow poll (half a second)."""
        return f"{self.namespace}:wake"

    def events(self, job_id: str) -> str:
        """A job's log (a stream) and its channel. The braces are literal: one cluster slot for a job's keys."""
        return f"{self.namespace}:events:{{{job_id}}}"

    def thread(self, thread_id: str) -> str:
        """The channel on which all jobs of a thread are heard."""
        return f"{self.namespace}:thread:{{{thread_id}}}"
