"""One stage for four clients: the real one and the testing one, each async and blocking, all with an async face."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from redis.asyncio import Redis

import threadline
import threadline.sync
from support.ledger import Bench, bench_on
from threadline import JobCancelled, JobFailed, JobInterrupted, testing
from threadline.contract.events import Event, encode_event
from threadline.contract.keys import Keys
from threadline.ledger.custody import Claim
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import EventLog
from threadline.testing.script import end_of

__all__ = ["AGENTS", "KINDS", "Scene", "run", "scene", "state", "told"]

KINDS = ("real", "real sync", "testing", "testing sync")
#: What live workers run, and whether it takes text.
AGENTS = {"steps": True, "dicts": False}
_REGISTERED = '{"steps": {"text_input": null}, "dicts": {"text_input": false}}'


class InThreads:
    """A blocking client or job with an async face: each call in a thread of its own, as a web server's."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._blocking, name)
        if not callable(call):
            return call

        async def ask(*arguments: Any, **options: Any) -> Any:
            answer = await asyncio.to_thread(call, *arguments, **options)
            return InThreads(answer) if isinstance(answer, threadline.sync.Job) else answer

        async def iterate(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            stream = call(*arguments, **options)
            try:
                while (item := await asyncio.to_thread(next, stream, None)) is not None:
                    yield item
            finally:
                await asyncio.to_thread(stream.close)

        return iterate if name in {"events", "thread_events"} else ask


class Scene(Protocol):
    """`client` has the calls of `threadline.Client`; the rest is what workers do."""

    client: Any

    async def start(self, job: Any) -> None: ...
    async def emit(self, job: Any, type: str, data: Any) -> None: ...  # noqa: A002 - an event's
    async def finish(self, job: Any, result: Any = None, *, raises: Any = None) -> None: ...
    async def settle(self, job: Any) -> None:
        """Let the worker of a running job notice that it shall stop."""


class _Real:
    def __init__(self, client: Any, bench: Bench, redis: Redis) -> None:
        self.client = client
        self._bench = bench
        self._log = EventLog(redis, Keys(), max_events=100, ttl_seconds=60)
        self._claims: dict[str, tuple[Claim, int]] = {}

    async def start(self, job: Any) -> None:
        self._claims[job.job_id] = (await self._bench.claim(job.job_id), 1)
        await self._announce(job)

    async def emit(self, job: Any, type: str, data: Any) -> None:  # noqa: A002 - an event's
        claim, n = self._claims[job.job_id]
        self._claims[job.job_id] = claim, n + 1
        event = Event(
            id=f"{claim.epoch}-{n + 1}", job_id=job.job_id, thread_id=job.thread_id, type=type, ns=[], data=data
        )
        await self._log.append(job.job_id, job.thread_id, claim.epoch, [(n + 1, encode_event(event))])

    async def finish(self, job: Any, result: Any = None, *, raises: Any = None) -> None:
        claim, _ = self._claims[job.job_id]
        columns = end_of(result, raises)._asdict()
        assert await self._bench.ledger.finish(claim, columns.pop("state"), **columns)
        await self._announce(job)

    async def settle(self, job: Any) -> None:
        [asked] = await self._bench.sql("SELECT code FROM threadline.cancel_requests WHERE job_id = %s", job.job_id)
        await self.finish(job, raises=JobCancelled(asked["code"]))

    async def _announce(self, job: Any) -> None:
        row = await self._bench.row(job.job_id)
        queued = encode_event(queued_event(job.job_id, row["thread_id"], row["agent"]))
        events = [(1, encode_event(event_of(row)))]
        await self._log.append(job.job_id, row["thread_id"], row["epoch"], events, queued=queued)


class _Testing:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def start(self, job: Any) -> None:
        await self._do("start", job.job_id)

    async def emit(self, job: Any, type: str, data: Any) -> None:  # noqa: A002 - an event's
        await self._do("emit", job.job_id, type, data)

    async def finish(
        self, job: Any, result: Any = None, *, raises: JobFailed | JobCancelled | JobInterrupted | None = None
    ) -> None:
        await self._do("finish", job.job_id, result, raises=raises)

    async def settle(self, job: Any) -> None:
        """It notices by itself, at the loop's next turn."""
        await asyncio.sleep(0)

    async def _do(self, name: str, *arguments: Any, **options: Any) -> None:
        done = getattr(self.client, name)(*arguments, **options)
        if isinstance(self.client, InThreads):
            await done


@contextlib.asynccontextmanager
async def scene(kind: str, redis_url: str, database_url: str) -> AsyncIterator[Scene]:
    """The stage of one kind. The URLs are not looked at for the testing clients."""
    if kind == "testing":
        async with testing.Client(agents=AGENTS) as client:
            yield _Testing(client)
    elif kind == "testing sync":
        with testing.SyncClient(agents=AGENTS) as blocking:
            yield _Testing(InThreads(blocking))
    else:
        async with bench_on(database_url, workers=()) as bench, Redis.from_url(redis_url) as redis:
            await bench.worker("w1", agents=_REGISTERED)
            if kind == "real":
                async with threadline.Client(redis_url=redis_url, database_url=database_url) as client:
                    yield _Real(client, bench, redis)
            else:
                with threadline.sync.Client(redis_url=redis_url, database_url=database_url) as blocking_real:
                    yield _Real(InThreads(blocking_real), bench, redis)


async def told(job: Any, after: str | None = None) -> list[tuple[str | None, str]]:
    """Ids and types of a job's events."""
    async with asyncio.timeout(20):
        return [(event.id, str(event.type)) async for event in job.events(after=after)]


async def run(stage: Scene, job: Any, result: Any = None, raises: Any = None) -> None:
    await stage.start(job)
    await stage.finish(job, result, raises=raises)


async def state(job: Any) -> str:
    return str((await job.status()).state)
