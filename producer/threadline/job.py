"""The handle of one job; all its calls are checked as the user it was made for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from threadline.contract.events import Event, EventType
from threadline.contract.job import JobStatus, seconds
from threadline.contract.states import State
from threadline.errors import (
    BackendUnavailable,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    NeedsDatabase,
    ResultTimeout,
)

if TYPE_CHECKING:
    from threadline.client import Client
    from threadline.ledger.ledger import Snapshot

__all__ = ["Job"]

#: Seconds between two looks into the ledger while Redis cannot tell that the job has ended.
_LEDGER_POLL_SECONDS = 1.0


class Job:
    """`job_id`, `thread_id`; made by `Client.enqueue` and `Client.job`."""

    def __init__(self, client: Client, job_id: str, thread_id: str, user_id: str | None) -> None:
        self._client = client
        self._user_id = user_id
        self.job_id = job_id
        self.thread_id = thread_id

    def __repr__(self) -> str:
        return f"Job(job_id={self.job_id!r}, thread_id={self.thread_id!r})"

    async def events(self, *, after: str | None = None) -> AsyncGenerator[Event, None]:
        """History behind the event id `after` (None: all of it), then live; ends with the job and never raises for it.

        A `gap` event says where the log no longer has everything. From Redis alone (no database_url) nobody can say
        whether the id is known or its log has expired: then this waits, for it may be enqueued later. Raises
        BackendUnavailable if Redis cannot be reached at the start, InvalidJob for an `after` that is no event id,
        JobNotFound, ThreadOwnedByAnother.
        """
        stream = self._client.events(self.job_id, self._user_id, after)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    async def status(self) -> JobStatus:
        """The job as the ledger has it. Raises JobNotFound, ThreadOwnedByAnother, NeedsDatabase."""
        return (await self._client.snapshot(self.job_id, self._user_id)).status

    async def cancel(self, *, rollback: bool = False) -> JobStatus:
        """Ask for the end. A queued job ends at once, a running one soon, an ended one stays as it is."""
        return await self._client.cancel(self.job_id, self._user_id, rollback=rollback)

    async def result(self, *, timeout: float | timedelta | None = None) -> Any:  # noqa: ASYNC109 - asyncio.timeout below
        """Wait for the end and return the result.

        `timeout` is seconds or timedelta, None waits without limit. Raises JobFailed, JobCancelled, JobInterrupted,
        ResultTimeout, JobNotFound, ThreadOwnedByAnother, BackendUnavailable.
        """
        limit = seconds("timeout", timeout)
        try:
            async with asyncio.timeout(limit):
                if self._client.has_ledger:
                    return await self._result_of_ledger()
                return await self._result_of_log()
        except TimeoutError as error:
            raise ResultTimeout(f"job {self.job_id} has not ended within {limit:g} s; it goes on") from error

    async def _result_of_ledger(self) -> Any:
        """The ledger is the truth; the log only says when to ask again."""
        while True:
            snapshot = await self._client.snapshot(self.job_id, self._user_id)
            if snapshot.status.ended:
                return _outcome(snapshot)
            with suppress(BackendUnavailable):
                await self._until_end()
                snapshot = await self._client.snapshot(self.job_id, self._user_id)
                if snapshot.status.ended:
                    return _outcome(snapshot)
            # Redis is away, or the log shows an old end of a job that is being retried.
            await asyncio.sleep(_LEDGER_POLL_SECONDS)

    async def _until_end(self) -> None:
        if not self._client.has_redis:
            return
        async for _event in self.events():
            pass

    async def _result_of_log(self) -> Any:
        end: Event | None = None
        async for event in self.events():
            end = event
        if end is None:
            raise BackendUnavailable(f"the log of job {self.job_id} is gone; its result needs a database_url")
        if isinstance(end.data, dict) and end.data.get("truncated"):
            raise NeedsDatabase(
                f"the result is over 1 MiB ({end.data.get('bytes')} bytes): only the ledger has it whole"
            )
        match end.type:
            case EventType.SUCCEEDED:
                return end.data["result"]
            case EventType.FAILED:
                raise JobFailed(end.data["code"], end.data["message"])
            case EventType.INTERRUPTED:
                raise JobInterrupted(end.data["interrupts"])
            case _:
                raise JobCancelled(end.data["code"])


def _outcome(snapshot: Snapshot) -> Any:
    status = snapshot.status
    error = status.error or {}
    match status.state:
        case State.SUCCEEDED:
            return snapshot.result
        case State.FAILED:
            raise JobFailed(error.get("code", "error"), error.get("message", ""))
        case State.INTERRUPTED:
            raise JobInterrupted(snapshot.interrupts)
        case _:
            raise JobCancelled(error.get("code", "requested"))
