"""What people are asked and answer: an answer is one new job in the asking job's place, or an error and nothing."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, NoReturn

import msgspec

from threadline.contract.codec import canonical
from threadline.contract.states import State
from threadline.contract.waiting import Waiting
from threadline.encryption.rows import opened_job, sealed_json
from threadline.encryption.vault import PLAIN, Vault
from threadline.errors import InvalidJob, NotWaiting, ThreadOwnedByAnother
from threadline.ledger.database import Database, Row
from threadline.ledger.ledger import Enqueued
from threadline.ledger.sql import Queries

__all__ = ["Answer", "Answers"]


class Answer(NamedTuple):
    """`values` by interrupt id; or else `value` for the only question (None: none is given)."""

    value: Any = None
    values: dict[str, Any] | None = None

    def fingerprint(self, thread_id: str) -> str:
        """Same answer, same value: what an idempotency key is compared on."""
        return hashlib.sha256(canonical(["resume", thread_id, self.value, self.values])).hexdigest()


class Answers:
    """The questions of one ledger."""

    def __init__(self, database: Database, queries: Queries, vault: Vault = PLAIN) -> None:
        self._database = database
        self._queries = queries
        self._vault = vault

    async def resume(
        self,
        job_id: str,
        thread_id: str,
        answer: Answer,
        *,
        user_id: str | None,
        metadata: dict[str, Any],
        idempotency_key: str | None,
        dispatching: bool,
    ) -> tuple[Enqueued, Row]:
        """Store a resume job. Raises NotWaiting, InvalidJob, ThreadOwnedByAnother, BackendUnavailable, NotMigrated."""
        params: dict[str, Any] = {
            "job_id": job_id,
            "thread_id": thread_id,
            "user_id": user_id,
            "asking": None,
            "answers": None,
            "metadata": sealed_json(self._vault, "metadata", metadata, job_id),
            "idempotency_key": idempotency_key,
            "dispatching": dispatching,
        }
        # The first request with the key may have come under an earlier encryption key.
        [params["fingerprint"], *earlier] = self._vault.fingerprints(answer.fingerprint(thread_id))
        while True:
            row = await self._database.row(self._queries["resume"], params)
            assert row is not None  # noqa: S101 - the function always returns one row
            if row["outcome"] == "different" and earlier:
                params["fingerprint"] = earlier.pop(0)
                continue
            if row["outcome"] != "asks":
                break
            # Compared and set: it counts only if the thread still waits with these questions.
            params["asking"] = row["job_id"]
            asked = opened_job(self._vault, {"interrupts": row["interrupts"]}, row["job_id"])["interrupts"]
            fitting = _fitting(answer, thread_id, asked)
            params["answers"] = sealed_json(self._vault, "input", fitting, job_id)
        if row["outcome"] not in {"created", "existing"}:
            _refuse(row, idempotency_key)
        return _stored(row), row

    async def inbox(self, *, user_id: str | None, thread_id: str | None = None, limit: int = 50) -> list[Waiting]:
        """What waits for a person, longest first."""
        params = {"user_id": user_id, "thread_id": thread_id, "limit": limit}
        rows = await self._database.rows(self._queries["inbox"], params)
        opened = [opened_job(self._vault, row) for row in rows]
        return [msgspec.convert({**row, "interrupts": row["interrupts"] or []}, Waiting) for row in opened]


def _fitting(answer: Answer, thread_id: str, interrupts: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer by interrupt id. Raises InvalidJob if it does not fit what is asked."""
    ids = [str(asked["id"]) for asked in interrupts]
    listed = ", ".join(ids) or "nothing"
    if answer.values is not None:
        if not answer.values or not answer.values.keys() <= set(ids):
            raise InvalidJob(f"values= has to name questions that thread {thread_id} asks; it asks: {listed}")
        return answer.values
    if not ids and answer.value is not None:
        raise InvalidJob(f"thread {thread_id} waits at a breakpoint and asks nothing: resume it without a value")
    if ids and answer.value is None:
        raise InvalidJob(f"thread {thread_id} asks {listed}: give value=… or values={{id: …}}")
    if len(ids) > 1:
        raise InvalidJob(f"thread {thread_id} has several questions: give values={{id: …}} for any of {listed}")
    return dict.fromkeys(ids, answer.value)


def _stored(row: Row) -> Enqueued:
    return Enqueued(
        job_id=row["job_id"],
        thread_id=row["thread_id"],
        state=State(row["state"]),
        epoch=row["epoch"],
        created=row["outcome"] == "created",
        head=bool(row["head"]),
        dispatch_n=row["dispatch_n"] or 0,
        queue=row["queue"],
    )


def _refuse(row: Row, idempotency_key: str | None) -> NoReturn:
    thread = row["thread_id"]
    match row["outcome"]:
        case "unknown_thread":
            raise NotWaiting(f"thread {thread} is not known: check the id")
        case "owned_by_another":
            raise ThreadOwnedByAnother(f"thread {thread} belongs to another user")
        case "not_waiting":
            raise NotWaiting(f"thread {thread} waits for nobody: `threadline inbox` lists what waits")
        case _:
            raise InvalidJob(f"idempotency key {idempotency_key!r} was used for another request (job {row['job_id']})")
