"""Following jobs and threads: the log tells, the ledger says who may hear it and how it ends if the log is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from threadline.calls.backends import Backends
from threadline.calls.thread_agenda import LedgerAgenda, ending_of
from threadline.contract.events import Event, EventId
from threadline.contract.job import check_id, check_thread_id, check_user_id
from threadline.errors import InvalidJob
from threadline.log.follow import follow, follow_thread
from threadline.log.heard import HeardAgenda
from threadline.log.thread import Agenda, Turn

__all__ = ["Progress"]


class Progress:
    """The streams of a client."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def events(self, job_id: str, user_id: str | None, after: str | None) -> AsyncGenerator[Event, None]:
        """The job's log; see `Job.events`."""
        redis, ledger = self._backends.need_redis("events"), self._backends.ledger
        if ledger is not None:
            await ledger.snapshot(check_id("job id", job_id), user_id=user_id)
        position = None if after is None else _event_id(after, after)
        ending = None if ledger is None else ending_of(ledger, job_id)
        keys, vault = self._backends.keys, self._backends.settings.vault
        async with aclosing(follow(redis, keys, job_id, after=position, ending=ending, vault=vault)) as events:
            async for event in events:
                yield event

    async def thread_events(
        self, thread_id: str, user_id: str | None, after: str | None
    ) -> AsyncGenerator[Event, None]:
        """The logs of a thread's jobs; see `Client.thread_events`."""
        redis = self._backends.need_redis("events")
        check_thread_id(thread_id)
        agenda = await self._agenda(
            thread_id,
            None if user_id is None else check_user_id(user_id),
            None if after is None else _thread_position(after),
        )
        keys, vault = self._backends.keys, self._backends.settings.vault
        async with aclosing(follow_thread(redis, keys, thread_id, agenda, vault=vault)) as events:
            async for event in events:
                yield event

    async def _agenda(self, thread_id: str, user_id: str | None, after: Turn | None) -> Agenda:
        if self._backends.ledger is None:
            if user_id is not None:
                self._backends.need_ledger("user_id=")
            return HeardAgenda(thread_id, after)
        agenda = LedgerAgenda(self._backends.ledger, thread_id, user_id)
        await agenda.begin(after)
        return agenda


def _event_id(text: str, after: str) -> EventId:
    if not isinstance(text, str):
        raise InvalidJob(f"after={after!r}: an event id is a str, for example 2-17")
    try:
        return EventId.parse(text)
    except ValueError as error:
        raise InvalidJob(f"after={after!r}: {error}") from error


def _thread_position(after: str) -> Turn:
    if not isinstance(after, str):
        raise InvalidJob(f"after={after!r}: a thread's position is a str JOB/ID, for example 0b5c8f/2-17")
    job_id, slash, event_id = after.rpartition("/")
    if not slash:
        raise InvalidJob(f"after={after!r}: a thread's position is JOB/ID, for example 0b5c8f/2-17")
    return Turn(check_id("job id", job_id), _event_id(event_id, after))
