"""An idle thread keeps its latest state alone: whoever dies in between, at every moment the thread can go on from it.

First the kept checkpoints are made whole: a delta channel's value is spread over its ancestors' writes, so a snapshot
of it is put into the checkpoint itself, under the same id (langgraph's own advice in `BaseCheckpointSaver.prune`).
Then the others go, batch by batch, each batch in a fenced transaction.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline_worker.checkpoints import CALL_SECONDS, FencedSaver, fenced
from threadline_worker.encrypted_checkpoints import SealingSaver
from threadline_worker.internal.scope import Scope

__all__ = ["compact"]

_BATCH: Final = 500
Deltas = Mapping[str, DeltaChannel[Any]]


async def compact(scope: Scope, _arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`rows`, what went by table, and `whole`, the namespaces that were left as they are.

    Left whole is a subgraph's call that is not over, and a namespace with a delta channel that the agent's graph does
    not have: another agent wrote it, and nobody here can say what it holds. Raises LeaseLost, CheckpointsAway.
    """
    saver = scope.saver()
    keep = await _keep(scope)
    for namespace, ids in keep.ids.items():
        for checkpoint_id in ids:
            await _make_whole(scope, saver, namespace, checkpoint_id, keep.deltas[namespace])
    rows: Counter[str] = Counter()
    for query in ("compact_checkpoints", "compact_blobs"):
        while gone := await _fenced(scope, query, keep.params()):
            rows.update(gone)
    for query in ("compact_bases", "compact_done"):
        await _fenced(scope, query, {})
    return {"rows": dict(rows), "whole": sorted(keep.whole)}


@dataclass
class _Keep:
    """Checkpoints by namespace with the graph's delta channels there, and namespaces that are kept whole."""

    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    deltas: dict[str, Deltas] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def params(self) -> dict[str, Any]:
        pairs = [(namespace, checkpoint_id) for namespace, ids in self.ids.items() for checkpoint_id in ids]
        return {
            "whole": list(self.whole),
            "namespaces": [namespace for namespace, _id in pairs],
            "ids": [checkpoint_id for _namespace, checkpoint_id in pairs],
            "limit": _BATCH,
        }


async def _keep(scope: Scope) -> _Keep:
    params = {"thread_id": scope.source}
    with fenced():
        async with asyncio.timeout(CALL_SECONDS), scope.checkpoints.connection() as connection:
            heads = await (await connection.execute(scope.queries["compact_heads"], params)).fetchall()
            marked = await (await connection.execute(scope.queries["compact_deltas"], params)).fetchall()
    were: defaultdict[str, set[str]] = defaultdict(set)
    for row in marked:
        were[row["checkpoint_ns"]].add(row["channel"])
    roots = {row["checkpoint_id"] for row in heads if not row["checkpoint_ns"]}
    deltas = await _deltas(scope)
    keep = _Keep()
    for row in heads:
        namespace = row["checkpoint_ns"]
        # A call's namespace ends with its task, and its state with the main graph's checkpoint that it began from.
        if ":" in namespace and row["root"] is not None and row["root"] not in roots:
            continue
        known = deltas.get(namespace, {})
        if ":" in namespace or not were[namespace] <= known.keys():
            keep.whole.add(namespace)
            continue
        keep.deltas[namespace] = known
        keep.ids[namespace] += filter(None, (row["checkpoint_id"], row["sends_parent"]))
    return keep


async def _deltas(scope: Scope) -> dict[str, Deltas]:
    """The delta channels of the graph, and of subgraphs with a state of their own, by namespace."""
    graph = scope.agent.graph
    graphs: dict[str, Any] = {name: subgraph async for name, subgraph in graph.aget_subgraphs(recurse=True)}
    graphs[""] = graph
    return {
        namespace: {name: spec for name, spec in one.channels.items() if isinstance(spec, DeltaChannel)}
        for namespace, one in graphs.items()
    }


async def _make_whole(scope: Scope, saver: FencedSaver, namespace: str, checkpoint_id: str, deltas: Deltas) -> None:
    config = scope.at(checkpoint_id)
    config["configurable"]["checkpoint_ns"] = namespace
    found = await saver.aget_tuple(config)
    if found is None:  # a parent that is not there
        return
    checkpoint = found.checkpoint
    spread = [
        name for name in deltas if name in checkpoint["channel_versions"] and name not in checkpoint["channel_values"]
    ]
    if not spread:
        return
    history = await saver.aget_delta_channel_history(config=config, channels=spread)
    values: dict[str, Any] = {}
    for name in spread:
        # What a delta channel stores of itself is always the mark of a missing value.
        channel = deltas[name].from_checkpoint(history[name].get("seed", deltas[name].checkpoint()))
        channel.replay_writes(history[name]["writes"])
        values[name] = _DeltaSnapshot(channel.get())
    await _put(scope, _whole(found, values))


class _Put(NamedTuple):
    found: CheckpointTuple
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    versions: ChannelVersions


def _whole(found: CheckpointTuple, values: Mapping[str, Any]) -> _Put:
    """The same checkpoint with these snapshots in it."""
    checkpoint: Checkpoint = {
        **found.checkpoint,
        "channel_values": {**found.checkpoint["channel_values"], **values},
    }
    metadata: Any = dict(found.metadata)
    counters = {
        name: counts
        for name, counts in (metadata.pop("counters_since_delta_snapshot", None) or {}).items()
        if name not in values
    }
    if counters:
        metadata["counters_since_delta_snapshot"] = counters
    return _Put(found, checkpoint, metadata, {name: checkpoint["channel_versions"][name] for name in values})


async def _put(scope: Scope, put: _Put) -> None:
    given = put.found.config["configurable"]
    parent = put.found.parent_config
    config: Any = {
        "configurable": {
            "thread_id": given["thread_id"],
            "checkpoint_ns": given["checkpoint_ns"],
            **({} if parent is None else {"checkpoint_id": parent["configurable"]["checkpoint_id"]}),
        }
    }
    with fenced():
        async with (
            asyncio.timeout(CALL_SECONDS), scope.checkpoints.connection() as connection, connection.transaction()
        ):  # fmt: skip
            unfenced = SealingSaver(connection, serde=scope.agent.serde, vault=scope.ledger.vault)
            await unfenced.aput(config, put.checkpoint, put.metadata, put.versions)
            await connection.execute(scope.queries["fence"], scope.fence)


async def _fenced(scope: Scope, query: str, params: Mapping[str, Any]) -> dict[str, int]:
    """One batch in a transaction of its own; what it did, empty if that was nothing."""
    with fenced():
        async with (
            asyncio.timeout(CALL_SECONDS), scope.checkpoints.connection() as connection, connection.transaction()
        ):  # fmt: skip
            row = await _row(connection, scope, query, params)
            await connection.execute(scope.queries["fence"], scope.fence)
    return {name: count for name, count in (row or {}).items() if count}


async def _row(
    connection: AsyncConnection[DictRow], scope: Scope, query: str, params: Mapping[str, Any]
) -> DictRow | None:
    await connection.execute("SET LOCAL lock_timeout = '2s'")
    cursor = await connection.execute(scope.queries[query], {"thread_id": scope.source, **params})
    return await cursor.fetchone() if cursor.description else None
