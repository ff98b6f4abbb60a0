"""A subscriber never wonders whether it missed something: every event once, in order, or a `gap` that says where not.

P4: subscribe, wait for the acknowledgement, read the stream from the last position, go live; read it again when
idle, after a reconnect and when a position is missing. The end of the job ends it, if need be as the ledger has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, cast

from redis.asyncio import Redis

from threadline.contract.events import Event, EventId, EventType, decode_event
from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable
from threadline.redis_client import REDIS_ERRORS, reason

__all__ = ["Position", "follow"]

#: Seconds without a message after which the stream is read again; pub/sub can lose messages without a sign.
IDLE_SECONDS: Final = 5.0
#: The same once the ledger says that the job has ended: the worker that announces it has two chances.
ENDING_SECONDS: Final = 1.0
#: Before the first attempt to connect again; doubled with each up to 2 s.
RECONNECT_SECONDS: Final = 0.1
#: A connection may be cut at the start as at any other time; a Redis that is not there is said to be after so many.
_START_RETRIES: Final = 2
_PAGE: Final = 500

#: Asks the ledger for the job's terminal event; None while it runs (or without a ledger).
Ending = Callable[[], Awaitable[Event | None]]


class _PubSub(Protocol):
    async def get_message(self, ignore_subscribe_messages: bool, timeout: float) -> dict[str, Any] | None: ...  # noqa: ASYNC109


class Position:
    """Where a reader is in one job's log, and whether the next event follows without a hole."""

    def __init__(self, job_id: str, after: EventId | None = None) -> None:
        self._job_id = job_id
        self.last = after
        self._step: int | None = None
        self._thread_id = ""

    def seen(self, event: Event) -> bool:
        """Whether the event is at or before this position."""
        return self.last is not None and event.position is not None and event.position <= self.last

    def follows(self, event: Event) -> bool:
        """Whether nothing is missing between this position and the event (P2)."""
        position = event.position
        if position is None:
            return True
        if self._lost_steps(event):
            return False
        if self.last is None:
            # From the beginning: `queued`, or the first claim of a job that nobody announced as queued.
            return position.n == 1 and (position.epoch == 0 or (position.epoch == 1 and event.prev is None))
        if position.n == 1:
            return event.prev == str(self.last)  # a transition names the id before it
        return position == (self.last.epoch, self.last.n + 1)

    def advance(self, event: Event) -> None:
        """Move behind the event."""
        self.last = event.position or self.last
        self._thread_id = event.thread_id
        if event.step is not None and not event.ns:
            self._step = event.step

    def gap(self, upto: Event) -> Event:
        """The event that says what is missing before `upto`."""
        data = {"after": str(self.last) if self.last else None, "next": upto.id}
        return Event(job_id=self._job_id, thread_id=upto.thread_id or self._thread_id, type=EventType.GAP, data=data)

    def _lost_steps(self, event: Event) -> bool:
        """Whether a pick-up goes on behind steps that were committed but never shown."""
        return (
            event.type == EventType.RESUMED
            and event.step is not None
            and self._step is not None
            and event.step > self._step
        )


async def follow(
    redis: Redis, keys: Keys, job_id: str, *, after: EventId | None = None, ending: Ending | None = None
) -> AsyncGenerator[Event, None]:
    """Yield the events of a job after a position, history first, until it has ended.

    Raises BackendUnavailable if Redis cannot be reached at the start; later outages are waited out.
    """
    reader = _Reader(redis, keys.events(job_id), Position(job_id, after), ending)
    attempt = 0
    while True:
        try:
            async with _subscribed(redis, keys.events(job_id)) as pubsub:
                async for event in reader.connected(pubsub):
                    attempt = 0
                    yield event
                if reader.done:
                    return
        except REDIS_ERRORS as error:
            if not reader.begun and attempt >= _START_RETRIES:
                raise BackendUnavailable(f"Redis: {reason(error)}: is REDIS_URL right?") from error
            async for event in reader.without_redis():
                yield event
            if reader.done:
                return
            await asyncio.sleep(min(RECONNECT_SECONDS * 2**attempt, 2.0))
            attempt += 1


@asynccontextmanager
async def _subscribed(redis: Redis, channel: str) -> AsyncIterator[_PubSub]:
    """A subscription whose acknowledgement has arrived: everything published from now on is heard."""
    pubsub = redis.pubsub()
    try:
        await pubsub.subscribe(channel)
        while (message := await pubsub.get_message(ignore_subscribe_messages=False, timeout=5.0)) is not None:
            if message["type"] == "subscribe":
                yield cast("_PubSub", pubsub)
                return
        raise TimeoutError("Redis did not acknowledge the subscription")
    finally:
        with suppress(*REDIS_ERRORS):
            await pubsub.aclose()  # type: ignore[no-untyped-call]


class _Reader:
    """One pass over one connection: replay, then live.

    `begun` says that Redis was there once, `done` that the job's end was yielded.
    """

    def __init__(self, redis: Redis, stream: str, position: Position, ending: Ending | None) -> None:
        self._redis = redis
        self._stream = stream
        self._position = position
        self._ending = ending
        self._ended_unannounced = False
        self.begun = False
        self.done = False

    async def connected(self, pubsub: _PubSub) -> AsyncIterator[Event]:
        self.begun, self.done = True, False
        before = self._position.last
        async for event in self._replay():
            yield event
        if self._position.last == before:
            self.done = await self._over_before()
        while not self.done:
            wait = ENDING_SECONDS if self._ended_unannounced else IDLE_SECONDS
            message = await pubsub.get_message(ignore_subscribe_messages=False, timeout=wait)
            async for event in self._take(message):
                yield event

    async def without_redis(self) -> AsyncIterator[Event]:
        """Redis is away: the ledger may know that the job has ended. At the start that is for the caller to know."""
        if not self.begun:
            return
        async for event in self._ask_ledger():
            yield event

    async def _take(self, message: dict[str, Any] | None) -> AsyncIterator[Event]:
        live = _event_of(message)
        if live is not None and self._position.seen(live):
            self.done = live.terminal and await self._over_before()
            return
        if live is not None and self._position.follows(live) and not live.terminal:
            self._position.advance(live)
            yield live
            return
        # Idle, a silent re-subscription, a hole, or an end behind which a retry may stand: the stream decides.
        before = self._position.last
        async for event in self._replay():
            yield event
        if message is None and self._position.last == before and not self.done:
            async for event in self._ask_ledger():
                yield event

    async def _replay(self) -> AsyncIterator[Event]:
        """Everything in the stream behind the position; a terminal event is the end only if nothing follows it."""
        held: Event | None = None
        async for event in self._behind():
            if held is not None:
                yield held
                held = None
            if not self._position.follows(event):
                yield self._position.gap(event)
            self._position.advance(event)
            if event.terminal:
                held = event
            else:
                yield event
        if held is not None:
            self.done = True
            yield held

    async def _over_before(self) -> bool:
        """Whether the reader's position is already behind the log's terminal event."""
        if self._position.last is None:
            return False
        newest = [_entry(*entry) for entry in await self._redis.xrevrange(self._stream, count=1)]
        return any(event is not None and event.terminal and self._position.seen(event) for event in newest)

    async def _behind(self) -> AsyncIterator[Event]:
        """The stream behind the position, page by page. The way on is Redis' own: an entry may be nobody's event."""
        start = f"({self._position.last}" if self._position.last else "-"
        while entries := await self._redis.xrange(self._stream, min=start, max="+", count=_PAGE):
            for entry in entries:
                if (event := _entry(*entry)) is not None:
                    yield event
            start = f"({_text(entries[-1][0])}"

    async def _ask_ledger(self) -> AsyncIterator[Event]:
        """End as the ledger has it, if the log still lacks the end at the second look."""
        end: Event | None = None
        if self._ending is not None:
            with suppress(BackendUnavailable):  # Postgres is away, too: a later look will tell
                end = await self._ending()
        if end is None:
            self._ended_unannounced = False
            return
        if self._position.seen(end):
            self.done = True
            return
        if not self._ended_unannounced:
            self._ended_unannounced = True
            return
        yield self._position.gap(end)
        self._position.advance(end)
        self.done = True
        yield end


def _event_of(message: dict[str, Any] | None) -> Event | None:
    if message is None or message["type"] != "message":
        return None
    return _decoded(message["data"])


def _entry(entry_id: bytes | str, fields: dict[Any, Any]) -> Event | None:
    """An entry of the stream; None if it is not the event of that position, so somebody else wrote it."""
    event = _decoded(fields.get(b"e") or fields.get("e") or b"")
    return event if event is not None and event.id == _text(entry_id) else None


def _decoded(data: bytes | str) -> Event | None:
    """An event with a position; None for anything else: whoever reaches Redis may publish on a channel."""
    with suppress(ValueError):
        event = decode_event(data)
        return event if event.position is not None else None
    return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
