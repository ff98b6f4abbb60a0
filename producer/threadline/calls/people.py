"""People in the loop: what waits for them, and their answers; an answer counts once, only where one is asked for."""

from __future__ import annotations

from typing import Any

from threadline.calls.backends import Backends
from threadline.calls.submit import Submission
from threadline.contract.job import check_id, check_key, check_metadata, check_thread_id, check_user_id, new_id
from threadline.contract.waiting import Waiting, check_answer
from threadline.errors import InvalidJob
from threadline.ledger.answers import Answer, Answers
from threadline.ledger.ledger import Ledger

__all__ = ["People"]

_MOST_LISTED = 10_000


class People:
    """Every call raises NeedsDatabase without a ledger."""

    def __init__(self, backends: Backends, submission: Submission) -> None:
        self._backends = backends
        self._submission = submission

    async def resume(
        self,
        thread_id: str,
        answer: Answer,
        *,
        user_id: str | None,
        metadata: dict[str, Any] | None,
        idempotency_key: str | None,
    ) -> tuple[str, str, str]:
        """Store the resume job and hand it on; job id, thread id and the thread's user. Raises as `Client.resume`."""
        ledger = self._backends.need_ledger("resume()")
        stored, row = await _answers(ledger).resume(
            new_id(),
            check_thread_id(thread_id),
            _checked(answer),
            user_id=None if user_id is None else check_user_id(user_id),
            metadata=check_metadata({} if metadata is None else metadata),
            idempotency_key=None if idempotency_key is None else check_key(idempotency_key),
            dispatching=self._backends.redis is not None,
        )
        if stored.created:
            self._backends.count_enqueued(row["agent"])
        if stored.created and stored.head:
            await self._submission.dispatch(ledger, stored, row["agent"])
        return stored.job_id, stored.thread_id, row["user_id"]

    async def inbox(self, user_id: str | None, thread_id: str | None, limit: int) -> list[Waiting]:
        """What waits for a person, longest first."""
        ledger = self._backends.need_ledger("inbox()")
        return await _answers(ledger).inbox(
            user_id=None if user_id is None else check_user_id(user_id),
            thread_id=None if thread_id is None else check_thread_id(thread_id),
            limit=max(1, min(limit, _MOST_LISTED)),
        )


def _answers(ledger: Ledger) -> Answers:
    return Answers(ledger.database, ledger.queries, ledger.vault)


def _checked(answer: Answer) -> Answer:
    if answer.value is not None and answer.values is not None:
        raise InvalidJob("give value=… for the only question, or values={id: …}, not both")
    if answer.values is not None and not isinstance(answer.values, dict):
        raise InvalidJob(f"values is a {type(answer.values).__name__}: give a dict of interrupt id to answer")
    for asked in answer.values or {}:
        check_id("interrupt id", asked)
    check_answer(answer.value if answer.values is None else answer.values)
    return answer
