"""Connections to Redis with a time limit on everything, from a URL that redis-py reads or that names Sentinels."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from threadline.errors import BackendUnavailable, ConfigurationError
from threadline.redis_sentinel import connect_sentinel, is_sentinel_url
from threadline.refusals import refusal_of_redis, said_by

__all__ = ["CLUSTER", "REDIS_ERRORS", "connect_redis", "is_cluster", "of_cluster", "reason", "refused", "uncancelled"]

T = TypeVar("T")

#: What a Redis that is away, full, loading or a replica raises; OSError where a name does not resolve.
REDIS_ERRORS = (exceptions.RedisError, OSError, TimeoutError)
#: One enqueue writes the queue and a message, in one transaction: in a cluster these are on different nodes.
CLUSTER = (
    "REDIS_URL is a Redis Cluster, where arq's transactions over several keys are refused: use a server without cluster"
    " mode, one primary with replicas and Sentinel (docs/operations.md)"
)
#: redis-py gives these errors of a cluster's node no class of their own; in a pipeline they stand behind its words.
_CLUSTERS_OWN = re.compile(r"\b(?:(?:MOVED|ASK) \d+ \S+:\d|CROSSSLOT |CLUSTERDOWN )")


def connect_redis(url: str, *, kind: type[Redis] = Redis, **options: Any) -> Any:
    """A client that connects on first use, to `redis://`, `rediss://`, `unix://` or `redis[s]+sentinel://`.

    Raises ConfigurationError for an URL that cannot be read.
    """
    settings: dict[str, Any] = {
        # Measured (findings.md): without socket_timeout a black-holed connection hung for as long as one looked.
        "socket_timeout": 5.0,
        "socket_connect_timeout": 3.0,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "redis_connect_func": _on_connect,
        **options,
    }
    try:
        if is_sentinel_url(url):
            return connect_sentinel(url, kind=kind, **settings)
        return kind.from_url(url, **{"retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 2), **settings})
    except ValueError:
        # `from None`: the standard library's message quotes what it took for the port, a piece of the password.
        raise ConfigurationError(
            "REDIS_URL is not a URL that redis-py reads: use redis://[user:password@]host:port/0, rediss://, unix:// or"
            " redis+sentinel://[user:password@]host:26379,host:26379/PRIMARY/0, special characters in the password as"
            " %XX"
        ) from None


async def _on_connect(connection: Any) -> None:
    """redis-py 5 checks the health of a connection before its own first words.

    A server that refuses that PING (no password given, still loading) would be connected to anew inside the call, and
    again inside that, without an end (measured: over a minute at 100 % CPU).
    """
    connection.next_health_check = asyncio.get_running_loop().time() + connection.health_check_interval
    await connection.on_connect()


async def is_cluster(client: Redis) -> bool:
    """Whether the server runs in cluster mode; False where INFO is refused. Raises redis' errors."""
    try:
        return bool((await client.info("cluster")).get("cluster_enabled"))
    except exceptions.NoPermissionError:
        return False


def of_cluster(error: BaseException) -> bool:
    """Whether this is the refusal of a cluster's node, which no second try changes."""
    return isinstance(error, exceptions.ResponseError) and _CLUSTERS_OWN.search(str(error)) is not None


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
    """An error of Redis as one line for people: host and port, never the password.

    What is known of it (threadline.refusals) is followed by what to do.
    """
    if of_cluster(error):
        return CLUSTER
    said = said_by(error) or type(error).__name__
    known = refusal_of_redis(said) if isinstance(error, exceptions.RedisError) else None
    return said if known is None else f"{said.rstrip('.')}: {known.do}"


def refused(error: BaseException) -> BackendUnavailable:
    """The same as our error; `passing` says whether waiting may help."""
    known = None if of_cluster(error) else refusal_of_redis(" ".join(str(error).split()))
    passing = not of_cluster(error) and (known is None or known.passing)
    return BackendUnavailable(f"Redis: {reason(error)}", passing=passing)
