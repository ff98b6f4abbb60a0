"""Says what a silence means: that nothing is known yet, or that Redis is away; a follower itself waits both out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from threadline.cli.session import end
from threadline.redis_client import REDIS_ERRORS, connect_redis, reason

__all__ = ["Attended", "attend"]

#: Without any event for so long, the hint is given.
_HINT_SECONDS: Final = 3.0
_PING_SECONDS: Final = 1.0
#: One failure is a connection that was cut; so many in a row are a Redis that is away.
_FAILURES: Final = 2


class Attended(Protocol):
    """Who is told."""

    def notice(self, sentence: str) -> None:
        """What is to be said until something else is; empty is nothing."""


@asynccontextmanager
async def attend(shown: Attended, redis_url: str | None, hint: str | None) -> AsyncIterator[asyncio.Event]:
    """Attend a watch inside the block. The event that it gives is to be set as soon as anything was heard."""
    heard = asyncio.Event()
    tasks = [asyncio.create_task(_hint(shown, hint, heard))] if hint else []
    if redis_url:
        tasks.append(asyncio.create_task(_outages(shown, redis_url)))
    try:
        yield heard
    finally:
        await end(tasks)


async def _hint(shown: Attended, hint: str, heard: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_HINT_SECONDS):
            await heard.wait()
    except TimeoutError:
        shown.notice(hint)
        await heard.wait()
        shown.notice("")


async def _outages(shown: Attended, redis_url: str) -> None:
    redis = connect_redis(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0))
    failures = 0
    try:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            try:
                await redis.ping()
            except REDIS_ERRORS as error:
                failures += 1
                if failures == _FAILURES:
                    shown.notice(f"Redis does not answer ({reason(error)}); the job goes on, waiting for Redis")
            else:
                if failures >= _FAILURES:
                    shown.notice("")
                failures = 0
    finally:
        await redis.aclose()
