"""P4: one job's log, replayed and then heard live: every event once and in order, or a `gap` that says where not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis

from threadline.contract.events import Event
from threadline.encryption.vault import PLAIN, Vault
from threadline.errors import BackendUnavailable, JobNotFound
from threadline.log.feed import Feed, Heard, decoded
from threadline.log.position import Position
from threadline.redis_client import uncancelled

__all__ = ["ENDING_SECONDS", "IDLE_SECONDS", "Ending", "Reader"]

#: Seconds without a message after which the stream is read again; pub/sub can lose messages without a sign.
IDLE_SECONDS: Final = 5.0
#: The same once the ledger says that the job has ended: the worker that announces it has two chances.
ENDING_SECONDS: Final = 1.0
#: Entries of a page: few at first, then as many as make up so many bytes. Redis holds a whole page in its memory.
_FIRST_PAGE: Final = 50
_LARGEST_PAGE: Final = 500
_PAGE_BYTES: Final = 2_000_000

#: Asks the ledger for the job's terminal event; None while it runs. Raises BackendUnavailable, and JobNotFound for one
#: that is not there any more (deleted, or of a time after a backup).
Ending = Callable[[], Awaitable[Event | None]]


class Reader:
    """Goes on over as many connections as it takes: `connected` once for each.

    `begun` says that Redis was there once, `done` that the job's end was yielded. `to_next_end`: the next end is one,
    also if the job went on after it; `upto`: only what the log has of the epochs up to there, which are over.
    """

    def __init__(
        self,
        redis: Redis,
        stream: str,
        position: Position,
        ending: Ending | None,
        vault: Vault = PLAIN,
        *,
        to_next_end: bool = False,
        upto: int | None = None,
    ) -> None:
        self._redis = redis
        self._stream = stream
        self.position = position
        self._ending = ending
        self._vault = vault
        self._to_next_end = to_next_end
        self._upto = upto
        self._ended_unannounced = False
        self.begun = False
        self.done = False

    async def connected(self, feed: Feed) -> AsyncGenerator[Event, None]:
        """The log behind the position, then what the feed brings, until the job has ended. Raises redis' errors."""
        self.begun, self.done = True, False
        before = self.position.last
        async for event in self._replay():
            yield event
        if self.position.last == before:
            async for event in self._nothing_new():
                yield event
        if self.done and await self._goes_on():
            self.done = False
        while not self.done:
            heard = await feed.next(ENDING_SECONDS if self._ended_unannounced else IDLE_SECONDS)
            async for event in self._take(heard):
                yield event

    async def without_redis(self) -> AsyncGenerator[Event, None]:
        """Redis is away: the ledger may know that the job has ended. At the start that is for the caller to know."""
        if not self.begun or self._upto is not None:
            return
        with suppress(JobNotFound):
            async for event in self._ask_ledger():
                yield event

    async def _take(self, heard: Event | Heard) -> AsyncGenerator[Event, None]:
        if isinstance(heard, Event) and heard.job_id != self.position.job_id:
            heard = Heard.DOUBT
        if isinstance(heard, Event) and self.position.seen(heard):
            self.done = heard.terminal and await self._over_before()
            return
        if isinstance(heard, Event) and not heard.terminal and self.position.follows(heard):
            self.position.advance(heard)
            yield heard
            return
        # Idle, a silent re-subscription, a hole, or an end behind which a retry may stand: the stream decides.
        before = self.position.last
        async for event in self._replay():
            yield event
        if not self.done and self.position.last == before:
            async for event in self._silence(heard):
                yield event

    async def _silence(self, heard: Event | Heard) -> AsyncGenerator[Event, None]:
        """The stream had nothing new either."""
        if heard is Heard.NOTHING:
            with suppress(JobNotFound):  # its log says so, or the next connection
                async for event in self._ask_ledger():
                    yield event
        elif heard is Heard.OVERTAKEN:
            self.done = True
            yield self.position.gap(None)

    async def _replay(self) -> AsyncGenerator[Event, None]:
        """Everything in the stream behind the position; a terminal event is the end only if nothing follows it."""
        async for event, newest in self._behind():
            if not self.position.follows(event):
                yield self.position.gap(event)
            self.position.advance(event)
            self.done = event.terminal and newest
            yield event
        if self._upto is not None:
            self.done = True

    async def _nothing_new(self) -> AsyncGenerator[Event, None]:
        """The log has nothing behind the position: it may be over, or gone; then only the ledger knows, at once."""
        if self.done:
            return
        newest = await self._newest()
        if newest is not None:
            self.done = self._is_over(newest)
        else:
            self._ended_unannounced = True
            try:
                async for event in self._ask_ledger():
                    yield event
            except JobNotFound:  # nobody knows it any more
                if not self._to_next_end:
                    raise
                self.done = True

    async def _goes_on(self) -> bool:
        """P3: the log has an end that the ledger does not know: it was restored from a backup, and the job runs again.

        Otherwise an end stands in the ledger before it is told. Where the ledger cannot be asked, or no longer has the
        job, the log is believed.
        """
        if self._ending is None or self._to_next_end or self._upto is not None:
            return False
        with suppress(BackendUnavailable, JobNotFound):
            return await self._ending() is None
        return False

    async def _over_before(self) -> bool:
        """Whether the reader's position is already behind the log's terminal event."""
        newest = await self._newest()
        return newest is not None and self._is_over(newest)

    def _is_over(self, newest: tuple[Any, ...]) -> bool:
        event = self._entry(*newest)
        return event is not None and event.terminal and self.position.seen(event)

    async def _newest(self) -> tuple[Any, ...] | None:
        entries = await uncancelled(self._redis.xrevrange(self._stream, count=1))
        return tuple(entries[0]) if entries else None

    async def _behind(self) -> AsyncGenerator[tuple[Event, bool], None]:
        """The stream behind the position, each event with whether it is the newest.

        That is known before the event is given away: were a lost connection to tell it too late, the end of the job
        would be behind the position, and nobody would have been told. The last of a page is read again then.
        """
        held: Event | None = None
        async for event in self._entries():
            if held is not None:
                yield held, False
            held = event
            if event.terminal and self._to_next_end:
                break
        if held is not None:
            yield held, True

    async def _entries(self) -> AsyncGenerator[Event, None]:
        """The stream page by page. The way on is Redis' own: an entry may be nobody's event."""
        start, count = f"({self.position.last}" if self.position.last else "-", _FIRST_PAGE
        while entries := await uncancelled(self._redis.xrange(self._stream, min=start, max="+", count=count)):
            for entry in entries:
                event = self._entry(*entry)
                if event is None:
                    continue
                if self._is_beyond(event):
                    return
                yield event
            start = f"({_text(entries[-1][0])}"
            size = sum(len(value) for _, fields in entries for value in fields.values())
            count = max(1, min(_LARGEST_PAGE, _PAGE_BYTES * len(entries) // max(size, 1)))

    def _entry(self, entry_id: bytes | str, fields: dict[Any, Any]) -> Event | None:
        """An entry of the stream; None if it is not this job's event of that position, so somebody else wrote it."""
        event = decoded(fields.get(b"e") or fields.get("e") or b"", self._vault)
        return event if event and (event.job_id, event.id) == (self.position.job_id, _text(entry_id)) else None

    def _is_beyond(self, event: Event) -> bool:
        return self._upto is not None and event.position is not None and event.position.epoch > self._upto

    async def _ask_ledger(self) -> AsyncGenerator[Event, None]:
        """End as the ledger has it, if the log still lacks the end at the second look. Raises JobNotFound."""
        end: Event | None = None
        if self._ending is not None:
            with suppress(BackendUnavailable):  # Postgres is away, too: a later look will tell
                end = await self._ending()
        if end is None:
            self._ended_unannounced = False
            return
        if self.position.seen(end):
            self.done = True
            return
        if not self._ended_unannounced:
            self._ended_unannounced = True
            return
        if end.prev is None or not self.position.follows(end):
            yield self.position.gap(end)
        self.position.advance(end)
        self.done = True
        yield end


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
