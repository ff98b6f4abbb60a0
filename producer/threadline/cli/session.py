"""A client of the environment's servers for the length of one command; its connections are closed at every end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from threadline.client import Client
from threadline.errors import ConfigurationError

__all__ = ["check_database_url", "with_client"]

T = TypeVar("T")


def with_client(body: Callable[[Client], Awaitable[T]]) -> T:
    """Run `body` with a client. Raises what it raises, ConfigurationError, and KeyboardInterrupt after Ctrl-C."""
    check_database_url(os.environ.get("DATABASE_URL"))

    async def main() -> T:
        async with Client.from_env() as client:
            return await body(client)

    return asyncio.run(main())


def check_database_url(url: str | None) -> None:
    """Raise ConfigurationError if libpq cannot read the URL."""
    try:
        conninfo_to_dict(url or "")
    except psycopg.ProgrammingError:
        # Without its cause: libpq quotes what it could not read, which may be the password.
        raise ConfigurationError(
            "DATABASE_URL is not a URL that Postgres reads: use postgresql://user:password@host:port/database"
        ) from None
