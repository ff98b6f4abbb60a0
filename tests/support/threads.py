"""A thread whose jobs a test runs by hand, as workers do, and what a follower has to tell of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis

from support.ledger import Bench
from support.logs import KEYS, Reader
from threadline import Client
from threadline.contract.events import Event, EventId, encode_event
from threadline.contract.job import new_id
from threadline.contract.states import State
from threadline.ledger.custody import Claim
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import EventLog

__all__ = ["Stage", "stage_on", "told"]


def told(reader: Reader) -> list[str]:
    """`JOB/ID` of each event, `JOB/gap` for a gap."""
    return [f"{event.job_id}/{event.id or 'gap'}" for event in reader.events]


class Stage:
    """`expected()` is all that was written, in the order in which jobs began, ended without, or went on."""

    def __init__(self, bench: Bench, redis: Redis, url: str) -> None:
        self.bench = bench
        self.redis = redis
        self.thread_id = new_id()
        self._url = url
        self._log = EventLog(redis, KEYS, max_events=100_000, ttl_seconds=60)
        #: What belongs to a job's next stretch, until it begins; and the stretches, in order.
        self._waiting: dict[str, list[str]] = {}
        self._stretches: list[tuple[str, list[str]]] = []
        self._claims: dict[str, tuple[Claim, int]] = {}
        self._ended_as: dict[str, State] = {}
        self._clients: list[tuple[Reader, Client]] = []

    def expected(self) -> list[str]:
        """What a follower tells once it has caught up."""
        return [f"{job_id}/{event_id}" for job_id, written in self._stretches for event_id in written]

    async def enqueue(self, **options: Any) -> str:
        """A queued job, announced as its producer does."""
        job = await self.bench.enqueue(thread_id=self.thread_id, **options)
        queued = encode_event(queued_event(job.job_id, self.thread_id, "steps"))
        await self._log.append(job.job_id, self.thread_id, 0, [(1, queued)])
        self._waiting[job.job_id] = ["0-1"]
        return job.job_id

    async def start(self, job_id: str, *, silently: bool = False) -> str:
        """A worker claims it; `silently`: Redis is away."""
        claim = await self.bench.claim(job_id)
        self._claims[job_id] = (claim, 1)
        await self.announce(job_id, silently=silently)
        return job_id

    async def step(self, job_id: str, count: int = 1) -> None:
        """It shows progress."""
        claim, n = self._claims[job_id]
        ids = [f"{claim.epoch}-{n + i}" for i in range(1, count + 1)]
        pairs = [
            (EventId.parse(i).n, encode_event(Event(job_id=job_id, thread_id=self.thread_id, type="updates", id=i)))
            for i in ids
        ]
        await self._log.append(job_id, self.thread_id, claim.epoch, pairs)
        self._claims[job_id] = (claim, n + count)
        self._newest(job_id).extend(ids)

    async def end(self, job_id: str, state: State = State.SUCCEEDED, *, silently: bool = False) -> None:
        """It ends; `silently`: its worker died before it could say so."""
        claim, n = self._claims.pop(job_id)
        assert await self.bench.ledger.finish(claim, state, code=None, log_top=f"{claim.epoch}-{n}")
        await self.announce(job_id, silently=silently)
        self._ended_as[job_id] = state

    async def release(self, job_id: str) -> None:
        """Its worker drains."""
        await self.bench.ledger.release(self._claims.pop(job_id)[0], "drain")
        await self.announce(job_id)

    async def cancel(self, job_id: str) -> None:
        """A queued job ends without having run, or a question without an answer."""
        await self.bench.ledger.cancel(job_id)
        await self.announce(job_id)

    async def retry(self, job_id: str) -> None:
        """An ended job goes on."""
        await self.bench.ledger.retry(job_id)
        await self.announce(job_id)

    async def announce(self, job_id: str, *, silently: bool = False) -> None:
        """Write and publish the job's latest transition."""
        row = await self.bench.row(job_id)
        self._write(job_id, row["transition"], f"{row['epoch']}-1")
        if not silently:
            queued = encode_event(queued_event(job_id, self.thread_id, "steps"))
            pair = (1, encode_event(event_of(row)))
            await self._log.append(job_id, self.thread_id, row["epoch"], [pair], queued=queued)

    def _write(self, job_id: str, transition: str, event_id: str) -> None:
        if transition == "retry":
            self._waiting[job_id] = [event_id]
        elif job_id in self._waiting or self._ended_as.pop(job_id, None) == State.INTERRUPTED:
            self._stretches.append((job_id, [*self._waiting.pop(job_id, []), event_id]))
        else:
            self._newest(job_id).append(event_id)

    def _newest(self, job_id: str) -> list[str]:
        return next(written for stretch, written in reversed(self._stretches) if stretch == job_id)

    async def whole(self, steps: int = 1, state: State = State.SUCCEEDED) -> str:
        """A job from its enqueue to its end."""
        job_id = await self.start(await self.enqueue())
        await self.step(job_id, steps)
        await self.end(job_id, state)
        return job_id

    def follow(self, after: str | None = None, *, user_id: str | None = None, ledger: bool = True) -> Reader:
        """A follower with a client of its own."""
        client = Client(redis_url=self._url, database_url=self.bench.ledger.database.url if ledger else None)
        reader = Reader(client.thread_events(self.thread_id, user_id=user_id, after=after))
        self._clients.append((reader, client))
        return reader

    async def heard(self, count: int = 1) -> None:
        """Wait until so many connections are subscribed to the thread."""
        channel = KEYS.thread(self.thread_id)
        async with asyncio.timeout(10):
            while (await self.redis.pubsub_numsub(channel))[0][1] != count:
                await asyncio.sleep(0.002)

    async def cut(self) -> None:
        """Cut every subscriber's connection."""
        await self.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        for reader, client in self._clients:
            await reader.stop()
            await client.aclose()


@contextlib.asynccontextmanager
async def stage_on(bench: Bench, redis_url: str) -> AsyncIterator[Stage]:
    """A new thread; its followers are stopped at the end."""
    async with Redis.from_url(redis_url) as redis:
        stage = Stage(bench, redis, redis_url)
        try:
            yield stage
        finally:
            await stage.close()
