"""A client of the environment's servers for the length of one command; its connections are closed at every end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final, TypeVar

from threadline.client import Client

__all__ = ["end", "with_client"]

T = TypeVar("T")

#: Between two attempts to end what did not end at Ctrl-C.
_AGAIN_SECONDS: Final = 0.2


def with_client(body: Callable[[Client], Awaitable[T]]) -> T:
    """Run `body` with a client. Raises what it raises, ConfigurationError, and KeyboardInterrupt after Ctrl-C."""

    async def main() -> T:
        async with Client.from_env() as client:
            return await body(client)

    return asyncio.run(_cancellable(main()))


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they are over; how they ended is nobody's concern any more.

    Once is not enough: Python 3.11's wait_for, which psycopg and redis-py use, loses a cancellation that arrives
    together with an answer.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: asyncio does not complain of it


async def _cancellable(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; one Ctrl-C is enough to end it."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await end({task})
        raise
    return task.result()
