"""A client of the environment's servers for the length of one command; its connections are closed at every end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from threadline.client import Client

__all__ = ["with_client"]

T = TypeVar("T")


def with_client(body: Callable[[Client], Awaitable[T]]) -> T:
    """Run `body` with a client. Raises what it raises, ConfigurationError, and KeyboardInterrupt after Ctrl-C."""

    async def main() -> T:
        async with Client.from_env() as client:
            return await body(client)

    return asyncio.run(main())
