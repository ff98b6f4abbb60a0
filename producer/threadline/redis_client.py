"""Connections to Redis with a time limit on everything, from the URL as redis-py reads it (TLS, ACL users, options)."""

from __future__ import annotations

from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from threadline.errors import ConfigurationError

__all__ = ["REDIS_ERRORS", "connect_redis", "reason"]

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


def reason(error: BaseException) -> str:
    """An error of Redis as one line for people. redis-py's messages name host and port, never the password."""
    return " ".join(str(error).split()) or type(error).__name__
