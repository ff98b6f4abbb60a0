"""What one operation may touch: it reads the thread that it is about, if that is its user's, and writes its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.pregel import Pregel
from psycopg_pool import AsyncConnectionPool

from threadline.errors import InvalidJob
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.sql import Queries
from threadline_worker.agents.registry import Agent
from threadline_worker.checkpoints import Fence, FencedSaver

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Scope", "scope_of"]


@dataclass(frozen=True)
class Scope:
    """One claim of an operation about the thread `source`. It holds, and may write, `claim.thread_id`."""

    claim: Claim
    agent: Agent
    ledger: Custody
    checkpoints: AsyncConnectionPool[Any]
    source: str

    @property
    def queries(self) -> Queries:
        """The ledger's statements."""
        return self.ledger.queries

    @property
    def fence(self) -> Fence:
        """What every write is checked against."""
        claim = self.claim
        return Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)

    def saver(self) -> FencedSaver:
        """A saver that reads any thread and writes the operation's own."""
        return FencedSaver(self.checkpoints, self.fence, self.queries, serde=self.agent.serde, vault=self.ledger.vault)

    def graph(self, saver: AsyncPostgresSaver) -> Pregel[Any, Any, Any, Any]:
        """The agent's graph over this saver."""
        return self.agent.graph.copy({"checkpointer": saver})

    def at(self, checkpoint_id: str | None = None) -> RunnableConfig:
        """The thread that it is about, at a checkpoint or (None) at its head."""
        configurable = {"thread_id": self.source, "checkpoint_ns": "", "user_id": self.claim.user_id}
        return {
            "configurable": configurable if checkpoint_id is None else configurable | {"checkpoint_id": checkpoint_id}
        }

    async def check_known(self, saver: AsyncPostgresSaver, checkpoint_id: str | None) -> None:
        """Raises InvalidJob if a checkpoint is named that the thread does not have, CheckpointsAway."""
        if checkpoint_id is not None and await saver.aget_tuple(self.at(checkpoint_id)) is None:
            raise InvalidJob(f"thread {self.source} has no checkpoint {checkpoint_id}: `threadline history` lists them")


async def scope_of(services: Services, claim: Claim, agent: Agent) -> Scope:
    """Raises InvalidJob if the thread is not (or no more) the user's who asked, BackendUnavailable."""
    ledger, source = services.ledger, str(claim.options["thread_id"])
    owner = await ledger.database.row(ledger.queries["thread_owner"], {"thread_id": source})
    if owner is None or owner["user_id"] != claim.user_id:
        raise InvalidJob(f"thread {source} is not known: check the id")
    return Scope(claim, agent, ledger, services.checkpoints, source)
