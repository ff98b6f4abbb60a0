"""Connections to Redis with a time limit on everything, from the URL as redis-py reads it (TLS, ACL users, options)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from threadline.errors import ConfigurationError

__all__ = ["REDIS_ERRORS", "connect_redis", "reason", "uncancelled"]

T = TypeVar("T")

#: What a Redis that is away, full, loading or a replica raises; OSError where a name does not resolve.
REDIS_ERRORS = (exceptions.RedisError, OSError, TimeoutError)


def connect_redis(url: str, *, kind: type[Redis] = Redis, **options: Any) -> Any:
    """A client that connects on first use. Raises ConfigurationError for an URL that redis-py cannot read."""
    settings: dict[str, Any] = {
        # Measured (findings.md): without socket_timeout a black-holed connection hung for as long as one looked.
        "socket_timeout": 5.0,
        "socket_connect_timeout": 3.0,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 2),
        **options,
    }
    try:
        return kind.from_url(url, **settings)
    except ValueError:
        # `from None`: the standard library's message quotes what it took for the port, a piece of the password.
        raise ConfigurationError(
            "REDIS_URL is not a URL that redis-py reads: use redis://[user:password@]host:port/0, rediss:// or unix://,"
            " special characters in the password as %XX"
        ) from None


async def uncancelled(call: Awaitable[T]) -> T:
    """The answer of a call to redis-py, unless the task was cancelled meanwhile: then CancelledError, always.

    redis-py sends with `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes while it ends.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    answer = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return answer


def reason(error: BaseException) -> str:
    """An error of Redis as one line for people. redis-py's messages name host and port, never the password."""
    return " ".join(str(error).split()) or type(error).__name__
