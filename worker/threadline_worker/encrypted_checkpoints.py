"""LangGraph's saver with all that a graph says sealed: no value of a channel, no write, no metadata in the clear.

LangGraph keeps scalars inside the checkpoint's JSON; here they are values like all others. A checkpoint's own JSON
holds names, versions and times. Its metadata is sealed together with a digest of that JSON; what SQL looks for in it
(`job_id`, `step`, `source` and the like) stands beside the sealed part for searching, and is never believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import DictRow

from threadline.contract.codec import canonical
from threadline.encryption import places
from threadline.encryption.vault import PLAIN, Vault

__all__ = [
    "SealingSaver",
    "moved_metadata",
    "opened_value",
    "opened_write",
    "sealed_value",
    "sealed_write",
]

#: Behind the serialiser's word in a `type` column: the bytes beside it are sealed.
_SEALED: Final = "+sealed"
#: Metadata that SQL reads: ours (resume.py, internal_applied.sql) and LangGraph's own prune.
_SEARCHED: Final = ("job_id", "update_id", "step", "source", "parents", "counters_since_delta_snapshot")
_SOURCES: Final = frozenset({"input", "loop", "update", "fork"})
#: The serialiser's word for "no value", without bytes.
_EMPTY: Final = "empty"


class _Whole(NamedTuple):
    """A scalar that LangGraph would leave inside the checkpoint's JSON."""

    value: Any


class _Thread(NamedTuple):
    thread_id: str
    namespace: str


#: Whose rows are being put together: LangGraph's method for it is not told.
_reading: ContextVar[_Thread] = ContextVar("_reading")


class SealingSaver(AsyncPostgresSaver):
    """`vault` without keys leaves everything as LangGraph writes it. Reads raise CannotDecrypt."""

    def __init__(self, conn: Any, *, serde: SerializerProtocol | None = None, vault: Vault = PLAIN) -> None:
        super().__init__(conn, serde=serde)
        self._vault = vault

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint."""
        if not self._vault.on:
            return await super().aput(config, checkpoint, metadata, new_versions)
        values = {name: _Whole(value) if _is_scalar(value) else value for name, value in _values(checkpoint).items()}
        if self._vault.reads_plaintext:
            # A scalar of before the migration stands in an earlier checkpoint's JSON and nowhere else.
            versions = checkpoint["channel_versions"]
            new_versions = {**{name: versions[name] for name in values if name in versions}, **new_versions}
        given = config["configurable"]
        bare: dict[str, Any] = {
            name: given[name] for name in ("thread_id", "checkpoint_ns", "checkpoint_id") if name in given
        }
        sealed = self._sealed_metadata(checkpoint, config, metadata)
        whole = cast("Checkpoint", {**checkpoint, "channel_values": values})
        return await super().aput({"configurable": bare}, whole, sealed, new_versions)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first. What a filter names and SQL cannot see is looked for behind the opening."""
        sealed = {name: value for name, value in (filter or {}).items() if self._vault.on and name not in _SEARCHED}
        seen = {name: value for name, value in (filter or {}).items() if name not in sealed}
        left = -1 if limit is None else limit
        if not left:
            return
        found = super().alist(config, filter=seen or None, before=before, limit=None if sealed else limit)
        async for one in found:
            metadata: Mapping[str, Any] = one.metadata
            if all(name in metadata and metadata[name] == value for name, value in sealed.items()):
                left -= 1
                yield one
            if not left:
                return

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The writes that a delta channel's value is made of."""
        given = config["configurable"]
        token = _reading.set(_Thread(str(given["thread_id"]), str(given.get("checkpoint_ns", ""))))
        try:
            return await super().aget_delta_channel_history(config=config, channels=channels)
        finally:
            _reading.reset(token)

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        return await super()._load_checkpoint_tuple(self._opened(value))

    def _opened(self, row: DictRow) -> DictRow:
        """A row as LangGraph would have written it."""
        where = _Thread(row["thread_id"], row["checkpoint_ns"])
        versions = row["checkpoint"]["channel_versions"]
        values = [
            (channel, *self._value(where, channel.decode(), str(versions[channel.decode()]), kind.decode(), blob))
            for channel, kind, blob in row["channel_values"] or ()
        ]
        self._check_inline(row["checkpoint"], {channel.decode() for channel, _kind, _blob in values}, where)
        writes = [
            (task, channel, *self._write(where, row["checkpoint_id"], task, idx, channel, kind, blob), path, idx)
            for task, channel, kind, blob, path, idx in row["pending_writes"] or ()
        ]
        metadata = self._opened_metadata(row, where)
        return {**row, "channel_values": values, "pending_writes": writes, "metadata": metadata}

    def _value(self, where: _Thread, channel: str, version: str, kind: str, blob: Any) -> tuple[bytes, bytes]:
        opened = opened_value(self._vault, (*where, channel, version), kind, blob)
        return opened[0].encode(), opened[1]

    def _write(  # noqa: PLR0917 - a row's columns, in their order
        self, where: _Thread, checkpoint_id: str, task: bytes, idx: bytes, channel: bytes, kind: bytes, blob: Any
    ) -> tuple[bytes, bytes]:
        place = (*where, checkpoint_id, task.decode(), int(idx), channel.decode())
        opened = opened_write(self._vault, place, kind.decode(), blob)
        return opened[0].encode(), opened[1]

    def _check_inline(self, checkpoint: Mapping[str, Any], stored: set[str], where: _Thread) -> None:
        """With keys nothing stands inside the checkpoint's JSON but marks of what is stored as a value."""
        if self._vault.reads_plaintext:
            return
        for channel, value in (checkpoint.get("channel_values") or {}).items():
            if value is not None and not (value is True and channel in stored):
                self._vault.refuse_plain(places.blob(*where, channel, "", "inline"))

    def _build_delta_channels_writes_history(
        self, *, stage2_rows: Sequence[Mapping[str, Any]], seed_inline_by_ch: Mapping[str, Any], **more: Any
    ) -> dict[str, DeltaChannelHistory]:
        where = _reading.get()
        for channel, value in seed_inline_by_ch.items():
            if value is not None:
                self._vault.refuse_plain(places.blob(*where, channel, "", "inline"))
        rows: Any = [self._opened_part(where, row) for row in stage2_rows]
        return super()._build_delta_channels_writes_history(
            stage2_rows=rows, seed_inline_by_ch=seed_inline_by_ch, **more
        )

    def _opened_part(self, where: _Thread, row: Mapping[str, Any]) -> dict[str, Any]:
        if row["_kind"] == "w":
            place = (*where, row["checkpoint_id"], row["task_id"], int(row["idx"]), row["channel"])
            kind, blob = opened_write(self._vault, place, row["type"], row["blob"])
        else:
            place_of_value = (*where, row["channel"], str(row["version"]))
            kind, blob = opened_value(self._vault, place_of_value, row["type"], row["blob"])
        return {**row, "type": kind, "blob": blob}

    def _dump_blobs(
        self, thread_id: str, checkpoint_ns: str, values: dict[str, Any], versions: ChannelVersions
    ) -> list[tuple[str, str, str, str, str, bytes | None]]:
        plain = {name: value.value if isinstance(value, _Whole) else value for name, value in values.items()}
        return [
            (*row[:4], *sealed_value(self._vault, row[:4], row[4], row[5]))
            for row in super()._dump_blobs(thread_id, checkpoint_ns, plain, versions)
        ]

    def _dump_writes(  # noqa: PLR0917 - LangGraph's signature
        self,
        thread_id: str,
        checkpoint_ns: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        writes: Sequence[tuple[str, Any]],
    ) -> list[tuple[str, str, str, str, str, int, str, str, bytes]]:
        rows = super()._dump_writes(thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, writes)
        return [(*row[:7], *sealed_write(self._vault, (*row[:4], *row[5:7]), *row[7:])) for row in rows]

    def _sealed_metadata(
        self, checkpoint: Checkpoint, config: RunnableConfig, metadata: CheckpointMetadata
    ) -> CheckpointMetadata:
        given = config["configurable"]
        whole = dict(get_serializable_checkpoint_metadata(config, metadata))
        place = places.checkpoint(
            given["thread_id"], given.get("checkpoint_ns", ""), checkpoint["id"], _digest(checkpoint)
        )
        return cast("CheckpointMetadata", _sealed_metadata(self._vault, whole, place))

    def _opened_metadata(self, row: DictRow, where: _Thread) -> dict[str, Any]:
        place = places.checkpoint(*where, row["checkpoint_id"], _digest(row["checkpoint"]))
        return _opened_metadata(self._vault, row["metadata"], place)


def moved_metadata(vault: Vault, row: Mapping[str, Any], source: str, target: str) -> dict[str, Any]:
    """The metadata of a checkpoint's row, sealed for another thread. Raises CannotDecrypt."""
    at = (row["checkpoint_ns"], row["checkpoint_id"], _digest(row["checkpoint"]))
    whole = _opened_metadata(vault, row["metadata"], places.checkpoint(source, *at))
    return _sealed_metadata(vault, whole, places.checkpoint(target, *at))


def _sealed_metadata(vault: Vault, whole: Mapping[str, Any], place: places.Place) -> dict[str, Any]:
    searched = {name: whole[name] for name in _SEARCHED if name in whole}
    if searched.get("source") not in _SOURCES:
        searched.pop("source", None)
    return {**searched, **vault.seal(whole, place)}


def _opened_metadata(vault: Vault, stored: Mapping[str, Any], place: places.Place) -> dict[str, Any]:
    if "sealed" not in stored:
        vault.refuse_plain(place)
        return dict(stored)
    return dict(vault.open({"sealed": stored["sealed"]}, place))


def sealed_value(vault: Vault, row: Sequence[str], kind: str, blob: bytes | None) -> tuple[str, bytes | None]:
    """Type and bytes of a channel's value as they are stored; `row` is thread, namespace, channel and version."""
    if not vault.on or kind == _EMPTY or blob is None:
        return kind, blob
    # Other checkpointers' versions are numbers; the table has them as text.
    return kind + _SEALED, vault.seal_bytes(blob, places.blob(row[0], row[1], row[2], str(row[3]), kind))


def opened_value(vault: Vault, row: Sequence[str], kind: str, blob: Any) -> tuple[str, bytes]:
    """Type and bytes as the serialiser made them. Raises CannotDecrypt."""
    if kind == _EMPTY:
        return kind, blob
    place = places.blob(row[0], row[1], row[2], row[3], kind.removesuffix(_SEALED))
    return _opened(vault, place, kind, blob)


def sealed_write(vault: Vault, row: tuple[str, str, str, str, int, str], kind: str, blob: bytes) -> tuple[str, bytes]:
    """The same for a pending write: thread, namespace, checkpoint, task, idx, channel."""
    return (kind + _SEALED, vault.seal_bytes(blob, places.write(*row, kind))) if vault.on else (kind, blob)


def opened_write(vault: Vault, row: tuple[str, str, str, str, int, str], kind: str, blob: Any) -> tuple[str, bytes]:
    """The same for a pending write: thread, namespace, checkpoint, task, idx, channel. Raises CannotDecrypt."""
    return _opened(vault, places.write(*row, kind.removesuffix(_SEALED)), kind, blob)


def _opened(vault: Vault, place: places.Place, kind: str, blob: Any) -> tuple[str, bytes]:
    if not kind.endswith(_SEALED):
        vault.refuse_plain(place)
        return kind, blob
    return kind.removesuffix(_SEALED), vault.open_bytes(bytes(blob), place)


def _is_scalar(value: Any) -> bool:
    """What LangGraph leaves inside the JSON, but for None: that it is None, the channel's absence would tell, too."""
    return isinstance(value, (str, int, float, bool))


def _values(checkpoint: Checkpoint) -> dict[str, Any]:
    return checkpoint["channel_values"]


def _digest(checkpoint: Mapping[str, Any]) -> str:
    """Of everything in a checkpoint's JSON but the values."""
    own = {name: value for name, value in checkpoint.items() if name != "channel_values"}
    return hashlib.sha256(canonical(own)).hexdigest()
