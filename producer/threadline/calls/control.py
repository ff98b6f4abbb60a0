"""Jobs that exist: looked up, cancelled, retried; the ledger decides, and followers are told at once."""

from __future__ import annotations

from contextlib import suppress

from threadline.calls.announce import Announcer
from threadline.calls.backends import Backends
from threadline.contract.codec import dumps
from threadline.contract.job import JobStatus, check_id, check_thread_id, check_user_id
from threadline.contract.queues import check_queue
from threadline.contract.states import State, Transition
from threadline.errors import InvalidJob
from threadline.ledger.ledger import Snapshot
from threadline.redis_client import REDIS_ERRORS

__all__ = ["Control"]

_MOST_LISTED = 10_000


class Control:
    """Every call raises NeedsDatabase without a ledger."""

    def __init__(self, backends: Backends, announcer: Announcer) -> None:
        self._backends = backends
        self._announcer = announcer

    async def snapshot(self, job_id: str, user_id: str | None) -> Snapshot:
        """A job as the ledger has it. Raises JobNotFound, ThreadOwnedByAnother."""
        ledger = self._backends.need_ledger("status()")
        return await ledger.snapshot(check_id("job id", job_id), user_id=user_id)

    async def jobs(
        self, state: str | None, thread_id: str | None, user_id: str | None, limit: int, *, queue: str | None = None
    ) -> list[JobStatus]:
        """Jobs that match, newest first. Raises InvalidJob for an unknown state."""
        ledger = self._backends.need_ledger("jobs()")
        return await ledger.jobs(
            state=_state(state),
            thread_id=None if thread_id is None else check_thread_id(thread_id),
            user_id=None if user_id is None else check_user_id(user_id),
            queue=None if queue is None else check_queue(queue),
            limit=max(1, min(limit, _MOST_LISTED)),
        )

    async def cancel(self, job_id: str, user_id: str | None, *, rollback: bool) -> JobStatus:
        """Queued ends at once, running is asked to stop, ended is a no-op."""
        ledger = self._backends.need_ledger("cancel()")
        status = await ledger.cancel(check_id("job id", job_id), user_id=user_id, rollback=rollback)
        if status.state is State.CANCELLED:
            await self._announcer.transition(ledger, job_id, Transition.CANCEL)
        if status.state is State.RUNNING and self._backends.redis is not None:
            # The quick way; the worker's beat finds the request in the ledger anyway.
            with suppress(*REDIS_ERRORS):
                await self._backends.redis.publish(self._backends.keys.control, dumps({"cancel": job_id}))
        return status

    async def retry(self, job_id: str, user_id: str | None) -> JobStatus:
        """A new epoch of an ended job. Raises JobNotFound, InvalidJob, ThreadMovedOn, ThreadOwnedByAnother."""
        ledger = self._backends.need_ledger("retry()")
        status = await ledger.retry(check_id("job id", job_id), user_id=user_id)
        await self._announcer.transition(ledger, job_id, Transition.RETRY)
        return status

    async def redeliver(self, job_id: str, user_id: str | None) -> JobStatus:
        """The webhook of the latest end is due again. Raises JobNotFound, InvalidJob, ThreadOwnedByAnother."""
        ledger = self._backends.need_ledger("redeliver()")
        return await ledger.redeliver(check_id("job id", job_id), user_id=user_id)


def _state(value: str | None) -> State | None:
    if value is None:
        return None
    try:
        return State(value)
    except ValueError as error:
        raise InvalidJob(f"state {value!r}: use one of {', '.join(State)}") from error
