"""A thread's state changed as if a node had returned the values: in one fenced transaction, once, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import EmptyInputError, InvalidUpdateError

from threadline.errors import InvalidJob
from threadline_worker.checkpoints import CALL_SECONDS, fenced, raise_checkpoint_clock
from threadline_worker.graph_change import GraphChangedError, gone
from threadline_worker.internal.atomic_saver import AtomicSaver
from threadline_worker.internal.scope import Scope
from threadline_worker.outcome import describe

__all__ = ["update_state"]


async def update_state(scope: Scope, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`checkpoint_id`, the new head.

    Raises InvalidJob (what the graph refuses), GraphChangedError, LeaseLost, CheckpointsAway.
    """
    if (done := await _applied(scope)) is not None:
        return {"checkpoint_id": done}
    raise_checkpoint_clock(scope.claim.newest_at_claim)
    saver = AtomicSaver(
        scope.checkpoints, scope.fence, scope.queries, serde=scope.agent.serde, vault=scope.ledger.vault
    )
    config = await _config(scope, saver)
    if arguments["as_node"] is None:
        await _check_place(scope)
    try:
        written = await scope.graph(saver).aupdate_state(config, arguments["values"], as_node=arguments["as_node"])
    except (InvalidUpdateError, EmptyInputError) as error:
        raise InvalidJob(describe(error)) from error
    await saver.commit()
    return {"checkpoint_id": written["configurable"]["checkpoint_id"]}


async def _check_place(scope: Scope) -> None:
    """LangGraph would drop what the thread stands before; with `as_node` the caller says where it goes on."""
    agent = scope.agent
    if lost := await gone(agent.graph, scope.saver(), scope.source, None, inside=False):
        raise GraphChangedError(
            f"thread {scope.source} stands where the graph {agent.fingerprint} of agent {agent.name} has no"
            f" {', no '.join(lost)} any more: bring that back, or say with as_node= where the thread goes on"
        )


async def _applied(scope: Scope) -> str | None:
    """The checkpoint of this very job: its worker died, or lost the answer, behind the commit."""
    params = {"thread_id": scope.source, "job_id": scope.claim.job_id}
    with fenced():
        async with asyncio.timeout(CALL_SECONDS), scope.checkpoints.connection() as connection:
            cursor = await connection.execute(scope.queries["internal_applied"], params)
            row = await cursor.fetchone()
    return None if row is None else row["checkpoint_id"]


async def _config(scope: Scope, saver: AtomicSaver) -> RunnableConfig:
    """The checkpoint stays the last job's (R2 reads its `job_id`): a failed job may be retried behind the change."""
    head = await saver.aget_tuple(scope.at())
    metadata = {"update_id": scope.claim.job_id}
    if head is not None and (job_id := head.metadata.get("job_id")) is not None:
        metadata["job_id"] = str(job_id)
    return {**scope.at(), "metadata": metadata}
