"""Tells what a thread needs to go on and the graph no longer has: LangGraph drops that without a word.

A task of a node that has gone is no task to LangGraph, so that the run would look finished; so is one inside a subgraph
or a subagent; the value of a channel that has gone is left out of the next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINTER, TASKS
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.types import Send

from threadline.contract.states import Code
from threadline.errors import InvalidJob
from threadline_worker.agents.fingerprint import Structure
from threadline_worker.agents.subgraphs import subgraphs
from threadline_worker.checkpoints import Fence, FencedSaver
from threadline_worker.outcome import Failed, Outcome, Released

if TYPE_CHECKING:
    from threadline.ledger.custody import Claim
    from threadline_worker.agents.registry import Agent
    from threadline_worker.execution import Services

__all__ = ["GraphChangedError", "changed", "gone", "gone_for", "note_graph"]

log = structlog.get_logger(__name__)

Graph = Pregel[Any, Any, Any, Any]
#: A node of a StateGraph is started by a channel of its own.
_TO: Final = "branch:to:"
#: Channels whose value is gone behind the next step in any case.
_PASSING: Final = frozenset({"EphemeralValue", "UntrackedValue"})
#: Of these the head has no value to see, it stands in earlier checkpoints.
_ELSEWHERE: Final = frozenset({"DeltaChannel"})


class GraphChangedError(InvalidJob):
    """The thread stands where the graph has nothing any more; the message says what to do."""


async def gone_for(claim: Claim, agent: Agent, services: Services) -> list[str]:
    """What this job's thread lacks; nothing where it was left with the same graph. Raises BackendUnavailable."""
    left_with = claim.row.get("agent_fingerprint")
    if left_with == agent.fingerprint:
        return []
    ledger = services.ledger
    before = None if left_with is None else await ledger.graph(left_with)
    # One of its own: what is read here is not what the run goes on from.
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    saver = FencedSaver(services.checkpoints, fence, ledger.queries, serde=agent.serde, vault=ledger.vault)
    return await gone(agent.graph, saver, claim.thread_id, before)


async def changed(claim: Claim, agent: Agent, services: Services, lost: Sequence[str]) -> Outcome:
    """The job is for a worker that still has the graph; without one it fails, and a retry goes on where it stands."""
    left_with = claim.row.get("agent_fingerprint")
    if left_with is not None and await services.ledger.leave_to(claim, left_with):
        return Released(Code.GRAPH_CHANGED)
    return Failed(Code.GRAPH_CHANGED, _told(claim, agent, lost))


def _told(claim: Claim, agent: Agent, lost: Sequence[str]) -> str:
    left_with = claim.row.get("agent_fingerprint")
    earlier = "another one" if left_with is None else left_with
    return (
        f"the graph of agent {claim.agent} is {agent.fingerprint} now and has no {', no '.join(lost)}, where the thread"
        f" stands; the job ran in {earlier}: run a worker with the graph as it was, or bring that back, and then"
        f" `threadline retry {claim.job_id}`"
    )


async def note_graph(claim: Claim, agent: Agent, services: Services, checkpoint_id: str | None) -> None:
    """The job goes on from this checkpoint in this graph, and the ledger knows. Raises BackendUnavailable."""
    word, left_with = agent.fingerprint, claim.row.get("agent_fingerprint")
    await services.ledger.note_checkpoint(claim, checkpoint_id, fingerprint=word, structure=agent.structure)
    if left_with not in {None, word}:
        log.info("agent.changed", before=left_with, fingerprint=word)


async def gone(
    graph: Graph, saver: BaseCheckpointSaver[Any], thread_id: str, before: Structure | None, *, inside: bool = True
) -> list[str]:
    """What is missing, such as `node publish`, `node ask in review`, `channel notes`; empty: it goes on.

    `before` is the graph that the thread was left with; None: not known, only nodes are judged then. Without `inside`
    only the thread's own head is looked at, not what its tasks have begun. Reads only.
    """
    return await _gone(graph, saver, {"thread_id": thread_id, "checkpoint_ns": ""}, before, inside=inside)


async def _gone(
    graph: Graph, saver: BaseCheckpointSaver[Any], at: dict[str, Any], before: Structure | None, *, inside: bool
) -> list[str]:
    head = await saver.aget_tuple({"configurable": at})
    if head is None:
        return []
    lost = [*_nodes(graph, head, before), *_channels(graph, head, before)]
    if lost or not inside:
        return lost
    config: RunnableConfig = {"configurable": {**at, CONFIG_KEY_CHECKPOINTER: saver}}
    state = await graph.aget_state(config)
    for task in state.tasks:
        begun = f"{at['checkpoint_ns']}|{task.name}:{task.id}".removeprefix("|")
        for call in count():  # a task may have called graphs several times
            below = {**at, "checkpoint_ns": f"{begun}|{call}" if call else begun}
            if await saver.aget_tuple({"configurable": below}) is None:
                break
            lost += [f"{what} in {task.name}" for what in await _within(graph, saver, below, task.name, before)]
    return lost


async def _within(
    graph: Graph, saver: BaseCheckpointSaver[Any], at: dict[str, Any], name: str, before: Structure | None
) -> list[str]:
    """Of what a task has begun. Several graphs may be meant, for which of a tool's agents ran is not told."""
    earlier = before["nodes"].get(name) if before is not None else None
    known = {} if earlier is None else earlier["subgraphs"]
    found = subgraphs(graph.nodes[name])
    if not found:
        return ["the subgraph"] if known else []
    lost = [await _gone(sub, saver, at, known.get(label), inside=True) for label, sub in found.items()]
    return min(lost, key=len)


def _nodes(graph: Graph, head: CheckpointTuple, before: Structure | None) -> Iterator[str]:
    for name in sorted(_next(head, before)):
        if name not in graph.nodes:
            yield f"node {name}"


def _next(head: CheckpointTuple, before: Structure | None) -> set[str]:
    """The nodes that the head's next step runs, whatever the graph of today says."""
    values, versions = head.checkpoint["channel_values"], head.checkpoint["channel_versions"]
    newest: Any = max(versions.values(), default=None)
    # A channel that no graph has any more keeps its old value and its old version.
    fresh = {name for name in values if versions.get(name) == newest}
    started = {name.removeprefix(_TO) for name in fresh if name.startswith(_TO)}
    if before is not None:
        started |= {name for name, node in before["nodes"].items() if not fresh.isdisjoint(node["triggers"])}
    sent = values.get(TASKS) or ()
    return started | {packet.node for packet in sent if isinstance(packet, Send)}


def _channels(graph: Graph, head: CheckpointTuple, before: Structure | None) -> Iterator[str]:
    values, versions = head.checkpoint["channel_values"], head.checkpoint["channel_versions"]
    described: Mapping[str, list[str]] = {} if before is None else before["channels"]
    for name, (kind, *_more) in described.items():
        if name in graph.channels or kind in _PASSING or name.startswith("__"):
            continue
        if not _is_empty(values.get(name)) or (kind in _ELSEWHERE and name in versions):
            yield f"channel {name}"


def _is_empty(value: Any) -> bool:
    """Nothing is lost with it."""
    return value is None or (isinstance(value, (str, bytes, list, tuple, set, frozenset, dict)) and not value)
