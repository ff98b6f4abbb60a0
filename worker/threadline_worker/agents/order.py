"""What a graph is made for: the run's configurable and context, as a producer may set them and as we do; ours win."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import _ExecutionRuntime, _ReadRuntime  # what LangGraph Server makes of them, too

from threadline.contract.codec import loads
from threadline_worker.agents.context import context_of

__all__ = ["Access", "JobUser", "Order", "configurable_of", "given_in"]

Access = Literal["threads.create_run", "threads.update", "threads.read", "assistants.read"]

#: Names that a producer's `configurable` cannot set. LangGraph reads its own among them, and would follow them: to
#: another thread, another checkpoint, another saver. The rest would be taken for the checkpoint's own metadata.
_RESERVED: Final = frozenset(
    {"thread_id", "thread_ts", "user_id", "job_id", "run_id", "update_id", "step", "source", "parents", "writes"}
)
_RESERVED_PREFIXES: Final = ("__", "checkpoint", "langgraph_")


def given_in(options: Mapping[str, Any], name: Literal["configurable", "context"]) -> dict[str, Any] | None:
    """What the producer gave under this option; None for nothing."""
    text = options.get(name)
    return None if text is None else dict(loads(text))


def configurable_of(given: Mapping[str, Any] | None, *, thread_id: str, user_id: str, job_id: str) -> dict[str, Any]:
    """A run's `config["configurable"]`: what the producer gave, without names that are reserved, and ours."""
    theirs = {
        name: value
        for name, value in (given or {}).items()
        if name not in _RESERVED and not name.startswith(_RESERVED_PREFIXES)
    }
    return {**theirs, "thread_id": thread_id, "user_id": user_id, "job_id": job_id}


@dataclass(frozen=True)
class JobUser(Mapping[str, Any]):
    """The job's user as a ServerRuntime shows it (langgraph_sdk.auth.types.BaseUser): whom the producer named."""

    identity: str
    is_authenticated: bool = True
    permissions: Sequence[str] = ()

    @property
    def display_name(self) -> str:
        """The user id."""
        return self.identity

    def __getitem__(self, key: str) -> Any:
        if key not in set(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(("identity", "display_name", "is_authenticated", "permissions"))

    def __len__(self) -> int:
        return 4


@dataclass(frozen=True)
class Order:
    """Why a graph is wanted, and for what. `context` is what the producer gave, None for nothing."""

    access: Access = "assistants.read"
    configurable: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] | None = None
    store: Callable[[], BaseStore] = InMemoryStore

    def config(self) -> RunnableConfig:
        """What a factory gets as `config`."""
        return {"configurable": dict(self.configurable)}

    def runtime(self, context_schema: Any) -> Any:
        """What a factory gets as `runtime`, with a context of this schema. Raises InvalidJob if it does not fit."""
        user_id = self.configurable.get("user_id")
        user: Any = None if user_id is None else JobUser(str(user_id))
        if self.access != "threads.create_run":
            return _ReadRuntime(access_context=self.access, user=user, store=self.store())
        context = context_of(context_schema, self.context, self.configurable)
        return _ExecutionRuntime(access_context=self.access, user=user, store=self.store(), context=context)
