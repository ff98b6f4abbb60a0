"""The states of a job and the only transitions between them; SQL and docs are checked against this table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["ENDED", "TRANSITIONS", "Code", "OnBusy", "State", "Transition"]


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Transition(StrEnum):
    """What raised a job's epoch last; with the row it rebuilds that epoch's event."""

    ENQUEUE = "enqueue"
    CLAIM = "claim"
    FINISH = "finish"
    RELEASE = "release"
    RESCUE = "rescue"
    CANCEL = "cancel"
    RETRY = "retry"
    EXPIRE = "expire"
    TIMEOUT = "timeout"


class Code(StrEnum):
    """Why a job failed or was cancelled. Agents may add their own."""

    ERROR = "error"
    TIMEOUT = "timeout"
    STEP_TIMEOUT = "step_timeout"
    POISONED = "poisoned"
    EXPIRED = "expired"
    INVALID_INPUT = "invalid_input"
    SUPERSEDED = "superseded"
    UNKNOWN_AGENT = "unknown_agent"
    AGENT_UNAVAILABLE = "agent_unavailable"
    RECURSION_LIMIT = "recursion_limit"
    #: Sealed with a key that the worker lacks, changed, or plaintext where only sealed data is read.
    UNREADABLE = "unreadable"
    #: The agent's graph lacks what the thread needs to go on.
    GRAPH_CHANGED = "graph_changed"
    REQUESTED = "requested"
    REPLACED = "replaced"
    # Reasons of a release, which ends nothing:
    DRAIN = "drain"
    DEAD_WORKER = "dead_worker"
    LOST_CLAIM = "lost_claim"
    TRANSIENT = "transient"


class OnBusy(StrEnum):
    """What an enqueue does when the thread is queued, running or waiting for a person."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


#: A terminal event of one of these states ends `Job.events()`. `interrupted` is one: a resume is a new job.
ENDED: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED})

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    # claim; a pending cancel, `expires`
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    # finish; release and rescue go back to queued
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED, State.QUEUED}),
    State.SUCCEEDED: frozenset(),
    # retry
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    # cancelling what waits for a person frees the thread
    State.INTERRUPTED: frozenset({State.CANCELLED}),
}
