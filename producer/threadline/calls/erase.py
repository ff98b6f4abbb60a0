"""A user is deleted: everything in Postgres, then in Redis; what a server's outage leaves is done by workers later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from threadline.contract import arq_message
from threadline.contract.carried import carries_job_of
from threadline.contract.codec import dumps
from threadline.contract.events import Event, EventType
from threadline.contract.keys import Keys
from threadline.contract.user_names import UserNames
from threadline.encryption.vault import Vault
from threadline.encryption.wire import encoded_event
from threadline.errors import BackendUnavailable
from threadline.ledger.erasure import Erasing, Erasure, erasing
from threadline.ledger.ledger import Ledger
from threadline.redis_client import REDIS_ERRORS, reason

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Deleted", "delete_user", "finish_deletion"]

#: A second round is needed where something came in between; it cannot go on for ever.
_ROUNDS: Final = 5
#: How long the end of a job that somebody may still run or follow stands in place of its log. It refuses whoever
#: publishes late; a process that is stopped between its own check (P3) and Redis for longer is not held off
#: (docs/retention.md).
_MARK_SECONDS: Final = 60
_PAGE: Final = 500


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """What `Client.delete_user` did: how much is gone of each table and of Redis, and how much is left.

    `finished` false: Redis was away (`waiting_for` says why); Postgres has nothing left, and workers do the rest.
    """

    erased: dict[str, int]
    left: dict[str, int]
    finished: bool
    waiting_for: str | None = None


async def delete_user(ledger: Ledger, redis: Redis | None, keys: Keys, user_id: str, names: UserNames) -> Deleted:
    """Erase a user. Raises BackendUnavailable (repeat it; it goes on), NotMigrated, ConfigurationError."""
    async with erasing(ledger, user_id) as erasure:
        await erasure.begin(names)
        return await _erase(erasure, redis, keys, names.name(user_id))


async def finish_deletion(ledger: Ledger, redis: Redis | None, keys: Keys, user_id: str, names: UserNames) -> Deleted:
    """Go on with an erasure that was begun. Raises BackendUnavailable."""
    async with erasing(ledger, user_id) as erasure:
        return await _erase(erasure, redis, keys, names.name(user_id))


async def _erase(erasure: Erasure, redis: Redis | None, keys: Keys, subject: str) -> Deleted:
    found = await _of_postgres(erasure, redis, keys, subject)
    if redis is None:
        return _unfinished(found, "no Redis is configured here")
    try:
        gone, left = await _of_redis(erasure, redis, keys)
    except BackendUnavailable:  # Postgres: an OSError as well
        raise
    except REDIS_ERRORS as error:
        return _unfinished(found, f"Redis: {reason(error)}")
    whole = Erasing({**found.erased, **gone}, {**found.left, **left}, found.done)
    if any(left.values()):
        return _unfinished(whole, "Redis got new entries meanwhile")
    await erasure.forget(whole)
    return Deleted(erased=whole.erased, left=whole.left, finished=True)


async def _of_postgres(erasure: Erasure, redis: Redis | None, keys: Keys, subject: str) -> Erasing:
    for _round in range(_ROUNDS):
        async for recent in erasure.erase():
            if redis is not None:
                await _tell(redis, keys, recent)
        found = await erasure.finish(subject)
        if found.done:
            return found
    left = ", ".join(f"{table}: {count}" for table, count in found.left.items() if count)
    raise BackendUnavailable(f"something writes again and again what is deleted ({left}): end it, then repeat this")


async def _tell(redis: Redis, keys: Keys, jobs: list[str]) -> None:
    """Workers look at once whether these are still theirs. Their beats say so anyway."""
    try:
        async with redis.pipeline(transaction=False) as pipe:
            for job_id in jobs:
                pipe.publish(keys.control, dumps({"cancel": job_id}))
            await pipe.execute()
    except REDIS_ERRORS:
        return


async def _of_redis(erasure: Erasure, redis: Redis, keys: Keys) -> tuple[dict[str, int], dict[str, int]]:
    """Logs and queued messages: how many are gone, and how many are left. Raises redis' errors."""
    until = await erasure.asked_at()
    if until is None:  # another process has finished it
        return {}, {}
    logs, jobs = 0, set[str]()
    async for page in erasure.jobs():
        for start in range(0, len(page), _PAGE):
            logs += await _erase_logs(redis, keys, page[start : start + _PAGE], erasure.vault)
        jobs.update(row["job_id"] for row in page)
    gone, left = 0, {"logs": 0, "messages": 0}
    for queue in map(keys.queue_of, await erasure.queues()):
        messages = await _messages(redis, queue, jobs, erasure.user_id, until.timestamp() * 1000)
        await _take_out(redis, queue, messages)
        gone += len(messages)
        left["messages"] += len(await _messages(redis, queue, jobs, erasure.user_id, until.timestamp() * 1000))
    async for page in erasure.jobs():
        for start in range(0, len(page), _PAGE):
            left["logs"] += await _count_logs(redis, keys, page[start : start + _PAGE])
    return {"logs": logs, "messages": gone}, left


async def _erase_logs(redis: Redis, keys: Keys, jobs: list[dict[str, Any]], vault: Vault) -> int:
    async with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.delete(keys.events(job["job_id"]))
        gone = sum(int(deleted) for deleted in await pipe.execute())
    for job in jobs:
        if job["recent"]:
            await _mark(redis, keys, job, vault)
    return gone


async def _mark(redis: Redis, keys: Keys, job: dict[str, Any], vault: Vault) -> None:
    """The job's end, alone: followers end with it, and a publisher of an earlier epoch is refused."""
    end = Event(
        id=f"{job['epoch']}-1",
        job_id=job["job_id"],
        thread_id=job["thread_id"],
        type=EventType.CANCELLED,
        data={"code": "requested"},
    )
    encoded, log = encoded_event(vault, end), keys.events(job["job_id"])
    async with redis.pipeline(transaction=True) as pipe:
        pipe.delete(log)
        pipe.xadd(log, {"e": encoded}, id=end.id or "*")
        pipe.expire(log, _MARK_SECONDS)
        await pipe.execute()
    async with redis.pipeline(transaction=False) as pipe:
        pipe.publish(log, encoded)
        pipe.publish(keys.thread(job["thread_id"]), encoded)
        await pipe.execute()


async def _count_logs(redis: Redis, keys: Keys, jobs: list[dict[str, Any]]) -> int:
    """Logs that have more than the mark."""
    async with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.xlen(keys.events(job["job_id"]))
        lengths = await pipe.execute()
    return sum(length > int(job["recent"]) for length, job in zip(lengths, jobs, strict=True))


async def _messages(redis: Redis, queue: str, jobs: set[str], user_id: str, until_ms: float) -> list[bytes]:
    """Messages in the queue that wake these jobs, or carry a job of the user that was sent by then."""
    found: list[bytes] = []
    cursor = 0
    while True:
        cursor, page = await redis.zscan(queue, cursor, count=_PAGE)
        names = [bytes(name) for name, _score in page]
        bodies = await redis.mget([arq_message.JOB_KEY_PREFIX.encode() + name for name in names]) if names else []
        for name, body in zip(names, bodies, strict=True):
            wakes = name.decode("utf-8", "replace").rsplit(":", 2)[0] in jobs
            if wakes or (body is not None and arq_message.sent_ms(body) <= until_ms and carries_job_of(body, user_id)):
                found.append(name)
        if not cursor:
            return found


async def _take_out(redis: Redis, queue: str, messages: list[bytes]) -> None:
    for name in messages:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.zrem(queue, name)
            for prefix in (arq_message.JOB_KEY_PREFIX, arq_message.RETRY_KEY_PREFIX):
                pipe.delete(prefix.encode() + name)
            await pipe.execute()


def _unfinished(found: Erasing, why: str) -> Deleted:
    return Deleted(erased=found.erased, left=found.left, finished=False, waiting_for=why)
