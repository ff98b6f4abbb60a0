"""What can be wrong with Redis: a question that a managed service refuses is told, and never ends the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis

from threadline.cli.doctor.check import Check, Level
from threadline.errors import ConfigurationError
from threadline.redis_client import REDIS_ERRORS, connect_redis, reason
from threadline.settings import ClientSettings

__all__ = ["check_redis", "judge_info"]

_LEAST: Final = (6, 2)


async def check_redis(settings: ClientSettings) -> list[Check]:
    """All findings about the Redis of the settings."""
    if not settings.redis_url:
        advice = "set REDIS_URL; without it jobs wait for a worker's sweep and nobody can follow them"
        return [
            Check(
                "redis",
                Level.WARN if settings.database_url else Level.FAIL,
                "REDIS_URL is not set",
                advice,
                unavailable=True,
            )
        ]
    try:
        client: Redis = connect_redis(settings.redis_url)
    except ConfigurationError as error:
        return [Check("redis", Level.FAIL, str(error), "mend REDIS_URL", unavailable=True)]
    async with client:
        try:
            await client.ping()
        except REDIS_ERRORS as error:
            advice = "start it, or mend REDIS_URL; without it jobs wait for a worker's sweep"
            return [Check("redis", Level.FAIL, f"not reachable: {reason(error)}", advice, unavailable=True)]
        try:
            info = await client.info("all")
            save = await _save_setting(client)
            keys = [settings.keys.queue_of(name) for name in settings.queues.names]
            waiting = sum([await client.zcard(key) for key in keys])
        except exceptions.NoPermissionError as error:
            advice = "allow this user INFO and the keys of THREADLINE_NAMESPACE, or look yourself"
            return [Check("redis", Level.WARN, f"reachable, but it does not answer: {reason(error)}", advice)]
        except REDIS_ERRORS as error:
            return [Check("redis", Level.FAIL, f"went away: {reason(error)}", "look at its log", unavailable=True)]
    return [*judge_info(info, save), Check("redis queue", Level.OK, f"{waiting} messages wait")]


async def _save_setting(client: Redis) -> str | None:
    """The RDB schedule, '' for none; None where CONFIG is refused."""
    try:
        return str((await client.config_get("save")).get("save", ""))
    except exceptions.ResponseError:  # NoPermissionError is one; managed services rename or forbid CONFIG
        return None


def judge_info(info: Mapping[str, Any], save: str | None) -> list[Check]:
    """Findings from INFO and the `save` setting (None: could not be read)."""
    return [_version(info), _role(info), *_cluster(info), _persistence(info, save), _eviction(info)]


def _version(info: Mapping[str, Any]) -> Check:
    # Valkey says which Redis it is compatible with, and its own version beside it.
    compatible = str(info.get("redis_version", "0"))
    own = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {compatible}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", compatible)[:2])
    if numbers < _LEAST:
        return Check("redis version", Level.FAIL, own, "use Redis 6.2 or newer, or Valkey")
    return Check("redis version", Level.OK, own)


def _role(info: Mapping[str, Any]) -> Check:
    role = str(info.get("role", "unknown"))
    if role in {"slave", "replica"}:
        return Check("redis role", Level.FAIL, "a replica, which takes no writes", "point REDIS_URL at the primary")
    return Check("redis role", Level.OK, role)


def _cluster(info: Mapping[str, Any]) -> list[Check]:
    if not info.get("cluster_enabled"):
        return []
    advice = "use a server without cluster mode: one primary with replicas, and Sentinel (docs/operations.md)"
    seen = "a Redis Cluster, where arq's transactions over several keys are refused"
    return [Check("redis cluster", Level.FAIL, seen, advice)]


def _persistence(info: Mapping[str, Any], save: str | None) -> Check:
    name, advice = "redis persistence", "set `appendonly yes`; jobs enqueued through Redis alone are lost in a restart"
    if info.get("aof_enabled"):
        return Check(name, Level.OK, "append-only file")
    if save is None:
        return Check(name, Level.INFO, "no append-only file; CONFIG is refused, so snapshots are unknown", advice)
    if save:
        return Check(name, Level.WARN, f"snapshots only ({save}); what came since the last is lost in a crash", advice)
    return Check(name, Level.WARN, "off", advice)


def _eviction(info: Mapping[str, Any]) -> Check:
    policy, limit = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0) or 0)
    seen = f"{policy}, " + (f"at {limit / 2**20:,.0f} MiB" if limit else "no memory limit")
    if policy == "noeviction":
        return Check("redis eviction", Level.OK, seen)
    advice = "set `maxmemory-policy noeviction`; waiting messages and logs expire, so every other policy may drop them"
    return Check("redis eviction", Level.FAIL if limit and policy != "unknown" else Level.WARN, seen, advice)
