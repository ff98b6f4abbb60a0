"""A job's log in Redis and its followers, without ledger and workers; and the right to cut connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis

from threadline.contract.events import Event, EventId, encode_event
from threadline.contract.job import new_id
from threadline.contract.keys import Keys
from threadline.log.append import Appended, EventLog
from threadline.log.follow import follow
from threadline.log.reader import Ending
from threadline.redis_client import connect_redis

__all__ = ["Log", "Reader", "log_on", "shown"]

KEYS = Keys()


def shown(events: Sequence[Event]) -> list[Any]:
    """Ids, or for a gap what it says: `("gap", after, next)`."""
    return [event.id or ("gap", event.data["after"], event.data["next"]) for event in events]


class Reader:
    """A follower in a task of its own. `events` is what it got; `got(n)` waits for so many, `end()` for its end."""

    def __init__(self, stream: AsyncGenerator[Event, None]) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: AsyncGenerator[Event, None]) -> None:
        async with contextlib.aclosing(stream):
            async for event in stream:
                async with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()

    async def got(self, count: int, limit: float = 10) -> list[Any]:
        """Wait until so many events are there; what is shown then."""
        async with asyncio.timeout(limit), self._changed:
            await self._changed.wait_for(lambda: len(self.events) >= count or self._task.done())
        return shown(self.events)

    async def end(self, limit: float = 20) -> list[Any]:
        """Wait for the end; all that was shown. Raises what the follower raises."""
        async with asyncio.timeout(limit):
            await self._task
        return shown(self.events)

    async def stop(self) -> None:
        """Cancel it, as a caller does that loses interest."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Log:
    """One job's log. `redis` is its writer's client, each follower has a client of its own."""

    def __init__(self, url: str, redis: Redis, *, max_events: int = 100_000, ttl_seconds: int = 60) -> None:
        self.url = url
        self.redis = redis
        self.job_id = new_id()
        self.thread_id = new_id()
        self.key = KEYS.events(self.job_id)
        self.writer = EventLog(redis, KEYS, max_events=max_events, ttl_seconds=ttl_seconds)
        self._readers: list[tuple[Reader, Redis]] = []

    def event(self, event_id: str, kind: str = "updates", **more: Any) -> Event:
        """An event of this job."""
        return Event(job_id=self.job_id, thread_id=self.thread_id, type=kind, id=event_id, **more)

    async def add(
        self, *events: tuple[str, str] | str, step: int | None = None, queued: bool | None = None
    ) -> Appended:
        """Append events of one epoch, `(id, type)` or an id, as a worker does: a transition brings `queued` along."""
        named = [event if isinstance(event, tuple) else (event, "updates") for event in events]
        positions = [EventId.parse(event_id) for event_id, _ in named]
        encoded = [encode_event(self.event(event_id, kind, step=step)) for event_id, kind in named]
        pairs = [(position.n, text) for position, text in zip(positions, encoded, strict=True)]
        brings = positions[0].n == 1 if queued is None else queued
        first = encode_event(self.event("0-1", "queued")) if brings else b""
        return await self.writer.append(self.job_id, self.thread_id, positions[0].epoch, pairs, queued=first)

    async def entries(self) -> list[str]:
        """The ids in the stream."""
        return [entry_id.decode() for entry_id, _ in await self.redis.xrange(self.key)]

    def follow(self, after: str | None = None, ending: Ending | None = None, *, patient: bool = True) -> Reader:
        """A new follower with the package's own client, which connects again by itself; or with one that does not."""
        client = connect_redis(self.url) if patient else Redis.from_url(self.url)
        position = EventId.parse(after) if after else None
        reader = Reader(follow(client, KEYS, self.job_id, after=position, ending=ending))
        self._readers.append((reader, client))
        return reader

    async def heard(self, count: int = 1) -> None:
        """Wait until so many connections are subscribed."""
        async with asyncio.timeout(10):
            while (await self.redis.pubsub_numsub(self.key))[0][1] != count:
                await asyncio.sleep(0.002)

    async def cut(self) -> int:
        """Cut every subscriber's connection; how many there were."""
        return int(await self.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        for reader, client in self._readers:
            await reader.stop()
            await client.aclose()


@contextlib.asynccontextmanager
async def log_on(redis_url: str, **options: Any) -> AsyncIterator[Log]:
    """A new job's log; its followers are stopped at the end."""
    async with Redis.from_url(redis_url) as redis:
        log = Log(redis_url, redis, **options)
        try:
            yield log
        finally:
            await log.close()
