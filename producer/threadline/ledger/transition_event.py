"""A transition's event (`<epoch>-1`), rebuilt from the ledger's row alone, so that any worker can publish it (P1)."""

from __future__ import annotations

from typing import Any

from threadline.contract.events import Event, EventType, now
from threadline.contract.states import ENDED, State, Transition
from threadline.ledger.database import Row

__all__ = ["event_of", "queued_event"]


def event_of(row: Row, *, step: int | None = None) -> Event:
    """The event of the row's epoch (a row of queries/transition.sql). `step` is the super-step of a pick-up."""
    state = State(row["state"])
    if state in ENDED:
        kind, data = EventType(str(state)), _end(state, row)
    else:
        kind, data = _passing(row)
    return Event(
        id=f"{row['epoch']}-1",
        job_id=row["job_id"],
        thread_id=row["thread_id"],
        type=str(kind),
        data=data,
        step=step if kind is EventType.RESUMED else None,
        at=now(row["transition_at"]),
    )


def queued_event(job_id: str, thread_id: str, agent: str, *, at: str | None = None) -> Event:
    """`0-1`: whoever appends to a log first puts it there."""
    return Event(
        id="0-1", job_id=job_id, thread_id=thread_id, type=EventType.QUEUED, data={"agent": agent}, at=at or now()
    )


def _end(state: State, row: Row) -> dict[str, Any]:
    match state:
        case State.SUCCEEDED:
            return {"result": row["result"]}
        case State.FAILED:
            return {"code": row["code"], "message": row["message"] or ""}
        case State.INTERRUPTED:
            return {"interrupts": row["interrupts"] or []}
        case _:
            return {"code": row["code"] or "requested"}


def _passing(row: Row) -> tuple[EventType, dict[str, Any]]:
    match Transition(row["transition"]):
        case Transition.CLAIM:
            kind = EventType.RESUMED if row["previous_worker"] else EventType.STARTED
            data = {"worker_id": row["worker_id"], "epoch": row["epoch"], "checkpoint_id": row["checkpoint_id"]}
            return kind, {**data, "from_worker": row["previous_worker"]} if row["previous_worker"] else data
        case Transition.RELEASE | Transition.RESCUE:
            return EventType.RELEASED, {
                "worker_id": row["previous_worker"],
                "epoch": row["epoch"],
                "code": row["code"],
                "message": row["message"],
                "run_at": now(row["run_at"]),
            }
        case Transition.RETRY:
            return EventType.RETRIED, {"epoch": row["epoch"]}
        case _:
            return EventType.QUEUED, {"agent": row["agent"]}
