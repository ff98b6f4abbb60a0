"""A job as the ledger in memory has it: the columns of schema/*.sql that a producer can see the effect of."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from threadline.contract.events import now
from threadline.contract.queues import DEFAULT_QUEUE
from threadline.contract.states import State

__all__ = ["StoredJob", "database_time"]


def database_time() -> datetime:
    """What stands for the database's clock."""
    return datetime.now(UTC)


@dataclass(kw_only=True)
class StoredJob:
    """A row of the table `jobs`; `row()` is what the queries give of it."""

    job_id: str
    thread_id: str
    user_id: str
    agent: str
    seq: int
    turn: int
    fingerprint: str
    kind: str = "input"
    input: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    resumes: str | None = None
    answered_by: str | None = None

    state: State = State.QUEUED
    epoch: int = 0
    transition: str = "enqueue"
    transition_at: datetime = field(default_factory=database_time)
    previous_worker: str | None = None
    worker_id: str | None = None
    failures: int = 0
    stalls: int = 0
    code: str | None = None
    message: str | None = None
    result: Any = None
    interrupts: list[dict[str, Any]] | None = None
    checkpoint_id: str | None = None

    created_at: datetime = field(default_factory=database_time)
    run_at: datetime = field(default_factory=database_time)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    dispatched_at: datetime | None = None

    #: The code of a pending cancel.
    cancel: str | None = None

    @property
    def open(self) -> bool:
        """Whether it holds its thread, or will."""
        return self.state in {State.QUEUED, State.RUNNING} or self.waiting

    @property
    def waiting(self) -> bool:
        """Whether it waits for a person."""
        return self.state is State.INTERRUPTED and self.answered_by is None

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the order of its thread."""
        return self.turn, self.seq

    @property
    def queue(self) -> str:
        """Where it waits; an answer has its asking job's options."""
        return str(self.options.get("queue", DEFAULT_QUEUE))

    def before(self, other: StoredJob) -> bool:
        """O1, `is_head` in schema/0001_ledger.sql: whether this job keeps the other one from running."""
        if self is other or self.thread_id != other.thread_id or not self.open:
            return False
        not_due = self.state is State.QUEUED and self.started_at is None and self.run_at > database_time()
        return not not_due and (self.state is State.RUNNING or self.place < other.place)

    def row(self) -> dict[str, Any]:
        """The row as queries/status.sql, jobs.sql, transition.sql and inbox.sql give it."""
        return {
            **{column.name: getattr(self, column.name) for column in fields(self)},
            "state": str(self.state),
            "log_top": None,
            "webhook": self._webhook(),
            "since": self.finished_at,
            "queue": self.queue,
            "worker_version": None,
            "agent_fingerprint": None,
            "expires_at": self._wait_expires_at(),
        }

    def _wait_expires_at(self) -> datetime | None:
        """When a wait for a person would end, were there a clock."""
        seconds = self.options.get("wait_expires")
        return None if seconds is None or self.finished_at is None else self.finished_at + timedelta(seconds=seconds)

    def _webhook(self) -> dict[str, Any] | None:
        """Nobody delivers here: the report of an end stays `pending`."""
        if self.options.get("webhook_url") is None:
            return None
        ended = self.finished_at is not None
        return {
            "state": "pending" if ended else "waiting",
            "epoch": self.epoch if ended else None,
            "attempts": 0,
            "status": None,
            "answer": None,
            "next_at": now(self.finished_at) if ended else None,
            "delivered_at": None,
        }
