"""A thread's jobs one after the other over one subscription, so that one position, `JOB/ID`, says what was told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, Protocol

from redis.asyncio import Redis

from threadline.contract.events import Event, EventId
from threadline.contract.keys import Keys
from threadline.encryption.vault import PLAIN, Vault
from threadline.log.feed import Feed, Heard, OfJob
from threadline.log.position import Position
from threadline.log.reader import IDLE_SECONDS, Ending, Reader

__all__ = ["Agenda", "ThreadReader", "Turn"]


class Turn(NamedTuple):
    """The job to be told next and how far it was told already.

    `upto` is the last epoch of what is to be told, where the job went on after other jobs' turns; else it is told to
    its next end.
    """

    job_id: str
    after: EventId | None
    upto: int | None = None


class Agenda(Protocol):
    """Which job of a thread is to be told next: the order in which they began to run, or ended without having run.

    A job that goes on after its end has another turn.
    """

    async def next(self) -> Turn | None:
        """A job that has begun and has something to tell; None if there is none for now. Raises nothing of servers."""
        ...

    def hear(self, heard: Event | Heard) -> None:
        """Something was published on the thread, or nothing for a while."""

    def told(self, turn: Turn, last: EventId | None, *, was_live: bool) -> None:
        """The job was told up to there; `was_live` says that its log had not ended when it was read."""

    def reconnected(self) -> None:
        """What was published meanwhile was not heard."""

    def gap(self) -> Event | None:
        """What is to be said about whole jobs that may be missing, once."""
        ...

    def ending(self, job_id: str) -> Ending | None:
        """How to ask for a job's end; None if nobody can."""
        ...


class ThreadReader:
    """As `Reader`, for a thread; it is never done."""

    done = False

    def __init__(self, redis: Redis, keys: Keys, thread_id: str, agenda: Agenda, vault: Vault = PLAIN) -> None:
        self._redis = redis
        self._keys = keys
        self._thread_id = thread_id
        self._agenda = agenda
        self._vault = vault
        self._turn: Turn | None = None
        self._reader: Reader | None = None
        self.begun = False

    async def connected(self, feed: Feed) -> AsyncGenerator[Event, None]:
        """All that is behind, then what the feed brings, for ever. Raises redis' errors."""
        if self.begun:
            self._agenda.reconnected()
        self.begun = True
        while True:
            if self._reader is None and (gap := self._agenda.gap()) is not None:
                yield gap
            turn = await self._next()
            if turn is None:
                self._agenda.hear(await feed.next(IDLE_SECONDS))
                continue
            async with aclosing(self._tell(*turn, feed)) as events:
                async for event in events:
                    yield event

    async def without_redis(self) -> AsyncGenerator[Event, None]:
        """Redis is away: jobs that have ended are told as the ledger has them."""
        turn = await self._next() if self.begun else None
        if turn is None:
            return
        async for event in turn[1].without_redis():
            yield event
        if turn[1].done:
            self._over(*turn, was_live=False)

    async def _next(self) -> tuple[Turn, Reader] | None:
        """The job that is being told, or the next one."""
        if self._turn is None:
            self._turn = await self._agenda.next()
            if self._turn is not None:
                self._reader = self._reader_of(self._turn)
        return (self._turn, self._reader) if self._turn is not None and self._reader is not None else None

    def _reader_of(self, turn: Turn) -> Reader:
        position = Position(turn.job_id, turn.after, thread_id=self._thread_id)
        ending = self._agenda.ending(turn.job_id)
        # With nobody to ask which turn is next, a job that goes on after its end does so at once.
        to_next_end = ending is not None
        reader = Reader(
            self._redis,
            self._keys.events(turn.job_id),
            position,
            ending,
            self._vault,
            to_next_end=to_next_end,
            upto=turn.upto,
        )
        reader.begun = True  # Redis was there: from now on its outages are waited out
        return reader

    async def _tell(self, turn: Turn, reader: Reader, feed: Feed) -> AsyncGenerator[Event, None]:
        """One job to its end."""
        alone = self._agenda.ending(turn.job_id) is None
        of_job = OfJob(feed, turn.job_id, self._agenda.hear, overtaking=alone)
        async for event in reader.connected(of_job):
            yield event
        self._over(turn, reader, was_live=of_job.heard)

    def _over(self, turn: Turn, reader: Reader, *, was_live: bool) -> None:
        self._agenda.told(turn, reader.position.last, was_live=was_live)
        self._turn = self._reader = None
