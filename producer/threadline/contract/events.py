"""One event of a job's log: unknown fields and unknown types pass through unharmed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from threadline.contract.codec import MAX_EVENT_BYTES
from threadline.contract.states import State

__all__ = ["TERMINAL", "Event", "EventId", "EventType", "decode_event", "encode_event", "now"]

VERSION: Final = 1
#: Redis keeps both halves of a stream id in 64 bits.
_MOST: Final = 2**64 - 1


class EventType(StrEnum):
    """The lifecycle events. Any other type is a LangGraph stream mode (`updates`, `messages`, …) or newer than us."""

    QUEUED = "queued"
    STARTED = "started"
    RESUMED = "resumed"
    RELEASED = "released"
    RETRIED = "retried"
    INTERRUPTED = "interrupted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GAP = "gap"


#: An event of one of these types ends the log unless a retry follows.
TERMINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED})


class EventId(NamedTuple):
    """`<epoch>-<n>`, ordered as a pair; n counts from 1 without holes inside an epoch."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.n}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read `2-17`; ValueError for anything else."""
        epoch, dash, n = text.partition("-")
        # Not int() alone: it takes "+1", " 1" and "1_0".
        if not (dash and epoch.isascii() and epoch.isdigit() and n.isascii() and n.isdigit()):
            raise ValueError(f"an event id is <epoch>-<n>, for example 2-17, not {text[:60]!r}")
        if max(len(epoch), len(n)) > len(str(_MOST)) or max(int(epoch), int(n)) > _MOST:
            raise ValueError(f"an event id has no numbers above {_MOST}: {text[:60]!r}")
        return cls(int(epoch), int(n))


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a subscriber gets.

    `id` is None only for `gap`. `ns` is the subgraph's namespace, [] for the main agent. `data` is JSON. `prev` is the
    log's last id before a lifecycle event; `step` is a step event's super-step. `at` is UTC, RFC 3339, milliseconds.

    Step events say where they come from, as far as it can be known: `agent` is the main agent's name or the subagent's,
    `node` the graph's node, `task` LangGraph's id of the run of that node, the same when it runs again after a crash.
    `rerun`: the log had an event of the same kind of the same task (or step) before this epoch.
    """

    job_id: str
    thread_id: str
    type: str
    id: str | None = None
    ns: list[str] = msgspec.field(default_factory=list)
    data: Any = None
    at: str = ""
    prev: str | None = None
    step: int | None = None
    v: int = VERSION
    agent: str | None = None
    node: str | None = None
    task: str | None = None
    rerun: bool = False

    @property
    def position(self) -> EventId | None:
        """The id as a pair; None for `gap`."""
        return EventId.parse(self.id) if self.id else None

    @property
    def terminal(self) -> bool:
        """Whether the job has ended with this event (unless it is retried)."""
        return self.type in TERMINAL


class _Wire(msgspec.Struct, frozen=True):
    """The field order and presence of contract.md; the fields from `step` on are added only where they are set."""

    v: int
    id: str | None
    job_id: str
    thread_id: str
    type: str
    ns: list[str]
    data: Any
    at: str
    step: int | msgspec.UnsetType = msgspec.UNSET
    agent: str | msgspec.UnsetType = msgspec.UNSET
    node: str | msgspec.UnsetType = msgspec.UNSET
    task: str | msgspec.UnsetType = msgspec.UNSET
    rerun: bool | msgspec.UnsetType = msgspec.UNSET
    prev: str | msgspec.UnsetType | None = msgspec.UNSET


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode_event(event: Event, *, seal: Callable[[bytes], str] | None = None) -> bytes:
    """The event as contract.md's JSON object, the optional fields last and only where set.

    `data` may be JSON already, as `msgspec.Raw`. Data over 1 MiB is replaced by `{"truncated": true, "bytes": n}`;
    ledger and checkpoint have it whole. `seal` makes `{"sealed": …}` of what it is then (docs/encryption.md).
    """
    if seal is not None:
        data = _encoder.encode(event.data)
        if len(data) > MAX_EVENT_BYTES:
            data = _encoder.encode({"truncated": True, "bytes": len(data)})
        return _encode(msgspec.structs.replace(event, data={"sealed": seal(data)}))
    encoded = _encode(event)
    if len(encoded) > MAX_EVENT_BYTES and (size := len(_encoder.encode(event.data))) > MAX_EVENT_BYTES:
        return _encode(msgspec.structs.replace(event, data={"truncated": True, "bytes": size}))
    return encoded


def _encode(event: Event) -> bytes:
    return _encoder.encode(
        _Wire(
            v=event.v,
            id=event.id,
            job_id=event.job_id,
            thread_id=event.thread_id,
            type=event.type,
            ns=event.ns,
            data=event.data,
            at=event.at or now(),
            step=msgspec.UNSET if event.step is None else event.step,
            agent=msgspec.UNSET if event.agent is None else event.agent,
            node=msgspec.UNSET if event.node is None else event.node,
            task=msgspec.UNSET if event.task is None else event.task,
            rerun=event.rerun or msgspec.UNSET,
            prev=msgspec.UNSET if event.prev is None else event.prev,
        )
    )


def decode_event(data: bytes | str) -> Event:
    """Read an event; msgspec.DecodeError (a ValueError) if it is none. Unknown fields are tolerated."""
    try:
        return _decoder.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error


def now(moment: datetime | None = None) -> str:
    """A moment (default: this one, by this machine's clock) as RFC 3339 in UTC with milliseconds."""
    moment = moment or datetime.now(UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
