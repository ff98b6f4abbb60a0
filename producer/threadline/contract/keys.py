"""Every name in Redis and the Postgres schema's name, made in one place from one namespace."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from threadline.contract.queues import DEFAULT_QUEUE
from threadline.errors import ConfigurationError

__all__ = ["DEFAULT_NAMESPACE", "Keys"]

DEFAULT_NAMESPACE: Final = "threadline"
_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Keys(msgspec.Struct, frozen=True):
    """The names of one environment; `namespace` is their first word and the Postgres schema.

    `adopted` is the schema of checkpoints that an application had before, None for the namespace's own. Raises
    ConfigurationError for a namespace that is not 1-40 of a-z, 0-9 and _, starting with a letter, and for a schema that
    is not 1-63 of them or starts otherwise.
    """

    namespace: str = DEFAULT_NAMESPACE
    adopted: str | None = None

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigurationError(
                f"THREADLINE_NAMESPACE={self.namespace!r}: use 1-40 of a-z, 0-9 and _, starting with a letter"
            )
        if self.adopted is not None and not _SCHEMA.fullmatch(self.adopted):
            raise ConfigurationError(
                f"THREADLINE_CHECKPOINT_SCHEMA={self.adopted!r}: use 1-63 of a-z, 0-9 and _, beginning with no digit"
            )

    @property
    def schema(self) -> str:
        """The Postgres schema of the ledger, of LangGraph's store and, if none are adopted, of its checkpoints."""
        return self.namespace

    @property
    def checkpoints(self) -> str:
        """The Postgres schema of LangGraph's checkpoints."""
        return self.adopted or self.namespace

    @property
    def search_path(self) -> str:
        """Where statements of LangGraph find their tables: one schema has checkpoints, the ledger's has the store."""
        return ", ".join(dict.fromkeys((self.schema, self.checkpoints, "public")))

    @property
    def queue(self) -> str:
        """Arq's sorted set of waiting messages, of the default queue."""
        return f"{self.namespace}:queue"

    def queue_of(self, name: str) -> str:
        """The same of a queue. Literal braces: else a queue `health-check` would have the key of arq's health check."""
        return self.queue if name == DEFAULT_QUEUE else f"{self.queue}:{{{name}}}"

    @property
    def control(self) -> str:
        """Pub/sub: `{"cancel": job_id}`."""
        return f"{self.namespace}:control"

    @property
    def wake(self) -> str:
        """Pub/sub, any payload: a message is in the default queue. Losing one costs a slow poll (half a second)."""
        return f"{self.namespace}:wake"

    def wake_of(self, name: str) -> str:
        """The same of a queue."""
        return self.wake if name == DEFAULT_QUEUE else f"{self.wake}:{{{name}}}"

    def events(self, job_id: str) -> str:
        """A job's log (a stream) and its channel. The braces are literal: one cluster slot for a job's keys."""
        return f"{self.namespace}:events:{{{job_id}}}"

    def thread(self, thread_id: str) -> str:
        """The channel on which all jobs of a thread are heard."""
        return f"{self.namespace}:thread:{{{thread_id}}}"
