"""Operations on threads as internal jobs (L9): asked for in one statement, answered once, and gone when it was read."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from threadline.contract.states import State
from threadline.encryption.rows import sealed_json
from threadline.errors import InvalidJob, JobNotFound, ThreadBusy, ThreadOwnedByAnother, UnknownAgent
from threadline.ledger.database import Row
from threadline.ledger.ledger import Enqueued, Ledger

__all__ = ["Asked", "InternalJobs"]

#: How long the answer of an internal job is kept for whoever asked, if it was never read.
KEPT_SECONDS: Final = 86_400.0


class Asked(NamedTuple):
    """An operation about `thread_id` that holds `target` (the same thread, or a new one of the same user).

    `arguments` are JSON. `user_id` None: the caller is trusted; `agent` None: that of the thread's latest job. After
    `seconds` it does not start any more, nor run on.
    """

    operation: str
    thread_id: str
    target: str
    arguments: dict[str, Any]
    user_id: str | None
    agent: str | None
    seconds: float


class InternalJobs:
    """The internal jobs of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._database = ledger.database
        self._queries = ledger.queries

    async def ask(self, job_id: str, asked: Asked, *, dispatching: bool) -> tuple[Enqueued, str]:
        """Store the job; with it the agent that it runs on.

        Raises JobNotFound (no such thread), ThreadOwnedByAnother, ThreadBusy, InvalidJob, UnknownAgent,
        BackendUnavailable, NotMigrated.
        """
        params = {
            "job_id": job_id,
            "operation": asked.operation,
            "thread_id": asked.thread_id,
            "target": asked.target,
            "user_id": asked.user_id,
            "agent": asked.agent,
            "input": sealed_json(self._ledger.vault, "input", asked.arguments, job_id),
            "seconds": asked.seconds,
            "lease_seconds": self._ledger.lease_seconds,
            "dispatching": dispatching,
        }
        row = await self._database.row(self._queries["internal"], params)
        assert row is not None  # noqa: S101 - the function always returns one row
        if row["outcome"] != "created":
            _refuse(row)
        stored = Enqueued(
            job_id=row["job_id"],
            thread_id=row["thread_id"],
            state=State(row["state"]),
            epoch=row["epoch"],
            created=True,
            head=bool(row["head"]),
            dispatch_n=row["dispatch_n"],
            queue=row["queue"],
        )
        return stored, row["agent"]

    async def look(self, job_id: str) -> Row:
        """How it stands: `state`, `code`, `message`, `result`, `started`.

        Raises JobNotFound, BackendUnavailable, CannotDecrypt.
        """
        row = await self._database.row(self._queries["internal_answer"], {"job_id": job_id})
        if row is None:
            raise JobNotFound("the operation is forgotten: its user was deleted, or its answer was not read for a day")
        return self._ledger.opened(row, job_id)

    async def cancel(self, job_id: str) -> None:
        """Nobody waits any more: queued ends at once, running is asked to. Raises BackendUnavailable."""
        await self._database.rows(self._queries["cancel"], {"job_id": job_id, "rollback": False})

    async def forget(self, job_id: str) -> None:
        """The answer was read: the job goes, and the thread that was made for it alone. Raises BackendUnavailable."""
        await self._database.rows(self._queries["internal_forget"], {"job_id": job_id})

    async def prune(self, *, seconds: float = KEPT_SECONDS, limit: int = 200) -> int:
        """Forget answers that nobody has read for so long, at most `limit`; how many they were."""
        row = await self._database.row(self._queries["internal_prune"], {"seconds": seconds, "limit": limit})
        return 0 if row is None else int(row["forgotten"])

    async def why_unanswered(self, operation: str, agent: str) -> str:
        """What keeps an operation waiting, and what to do. Raises BackendUnavailable."""
        params = {"operation": operation, "agent": agent, "lease_seconds": self._ledger.lease_seconds}
        row = await self._database.row(self._queries["internal_workers"], params)
        living, able = (0, 0) if row is None else (row["living"], row["able"])
        if not living:
            return "no worker is alive: start one (`threadline worker`)"
        if not able:
            return f"none of {living} live worker(s) can do it for the agent {agent}: start one of this release with it"
        return f"{able} live worker(s) could do it and have not come to it: repeat it, or give it more time"


def _refuse(row: Row) -> None:
    thread, agent = row["thread_id"], row["agent"]
    match row["outcome"]:
        case "unknown_thread":
            raise JobNotFound(f"thread {thread} is not known: check the id")
        case "owned_by_another" | "target_owned_by_another":
            raise ThreadOwnedByAnother(f"thread {thread} belongs to another user")
        case "busy":
            raise ThreadBusy(f"thread {thread} is busy: job {row['job_id']} is {row['state']}", job_id=row["job_id"])
        case "thread_taken":
            raise InvalidJob(f"thread {thread} exists: give the id of a new thread, or none")
        case "no_agent":
            raise InvalidJob(f"thread {thread} has no job that tells its agent: name the agent")
        case _:
            raise UnknownAgent(f"no live worker runs the agent {agent!r}")
