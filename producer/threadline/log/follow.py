"""A subscriber never wonders whether it missed something: every event once, in order, or a `gap` that says where not.

P4: subscribe, wait for the acknowledgement, read the stream from the last position, go live; read it again when
idle, after a reconnect and when a position is missing. The end of the job ends it, if need be as the ledger has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Protocol

from redis.asyncio import Redis

from threadline.contract.events import Event, EventId
from threadline.contract.keys import Keys
from threadline.encryption.vault import PLAIN, Vault
from threadline.log.feed import Feed, subscribed
from threadline.log.position import Position
from threadline.log.reader import Ending, Reader
from threadline.log.thread import Agenda, ThreadReader
from threadline.redis_client import REDIS_ERRORS, of_cluster, refused

__all__ = ["RECONNECT_SECONDS", "follow", "follow_thread"]

#: Before the first attempt to connect again; doubled with each up to 2 s.
RECONNECT_SECONDS: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
#: A connection may be cut at the start as at any other time; a Redis that is not there is said to be after so many.
_START_RETRIES: Final = 2


class _Session(Protocol):
    """What goes on over many connections; see Reader."""

    @property
    def begun(self) -> bool: ...
    @property
    def done(self) -> bool: ...
    def connected(self, feed: Feed) -> AsyncGenerator[Event, None]: ...
    def without_redis(self) -> AsyncGenerator[Event, None]: ...


async def follow(
    redis: Redis,
    keys: Keys,
    job_id: str,
    *,
    after: EventId | None = None,
    ending: Ending | None = None,
    vault: Vault = PLAIN,
) -> AsyncGenerator[Event, None]:
    """Yield the events of a job after a position, history first, until it has ended.

    Without `ending` an id that nobody publishes under is waited for without end. Raises BackendUnavailable if Redis
    cannot be reached at the start; later outages are waited out. Raises CannotDecrypt for what `vault` cannot open.
    """
    channel = keys.events(job_id)
    reader = Reader(redis, channel, Position(job_id, after), ending, vault)
    async with aclosing(_kept_up(redis, channel, reader, vault)) as events:
        async for event in events:
            yield event


async def follow_thread(
    redis: Redis, keys: Keys, thread_id: str, agenda: Agenda, *, vault: Vault = PLAIN
) -> AsyncGenerator[Event, None]:
    """Yield the events of a thread's jobs, job by job as the agenda has them; it never ends.

    Raises as `follow`.
    """
    reader = ThreadReader(redis, keys, thread_id, agenda, vault)
    async with aclosing(_kept_up(redis, keys.thread(thread_id), reader, vault)) as events:
        async for event in events:
            yield event


async def _kept_up(redis: Redis, channel: str, session: _Session, vault: Vault) -> AsyncGenerator[Event, None]:
    """One connection after the other until the session is done. Closing it gives the connection back at once."""
    attempt = 0
    while True:
        try:
            async with subscribed(redis, channel, vault) as feed, aclosing(session.connected(feed)) as events:
                async for event in events:
                    attempt = 0
                    yield event
            if session.done:
                return
        except REDIS_ERRORS as error:
            if of_cluster(error) or (not session.begun and attempt >= _START_RETRIES):
                raise refused(error) from error
            async with aclosing(session.without_redis()) as events:
                async for event in events:
                    yield event
            if session.done:
                return
            await asyncio.sleep(min(RECONNECT_SECONDS * 2**attempt, _LONGEST_PAUSE))
            attempt += 1
