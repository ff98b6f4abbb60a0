"""A job that a message carries is in the ledger before its message goes; what can never be one is set aside (L5).

Safe to repeat, by the same worker and by others at once: the ledger knows the job by its id.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import structlog

from threadline.contract import arq_message
from threadline.contract.codec import dumps
from threadline.contract.events import Event, EventType, encode_event
from threadline.contract.job import check_id, check_thread_id, decode_request
from threadline.contract.signature import verify
from threadline.contract.states import Code, State
from threadline.errors import BackendUnavailable, InvalidJob, JobNotFound, ThreadlineError
from threadline.redis_client import REDIS_ERRORS
from threadline_worker.messages import Unreadable, is_wake_up, job_of
from threadline_worker.serialise import storable

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Adoption"]

log = structlog.get_logger(__name__)

#: Waiting messages that one round looks at, and how many bodies it has in memory at once (each up to a few MiB).
_LOOK = 100
_BODIES = 20
_KEPT_BYTES = 65_536


class Adoption:
    """`adopt()` for the message in hand, `adopt_waiting()` for those that no slot is free for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._from = 0

    async def adopt(self, message_id: str, job_id: str, job: Any, *, dispatching: bool) -> bool:
        """Insert the job. False: it can never become one, and is set aside. `dispatching`: the message wakes a worker.

        Raises BackendUnavailable; the message must stay then.
        """
        try:
            if not isinstance(job, dict) or job.get("job_id") != job_id:
                raise InvalidJob("the message's job is not an object with the same job_id")
            verify(job, self._services.settings.client.enqueue_keys)
            request = decode_request(job)
            stored = await self._services.ledger.enqueue(
                request, fingerprint=request.fingerprint(), dispatching=dispatching, check_agent=False
            )
        except BackendUnavailable:
            raise
        except (ThreadlineError, psycopg.DataError) as error:
            await self.dead_letter(message_id, f"{type(error).__name__}: {error}", dumps(job))
            await self._tell(job_id, job, error)
            return False
        except psycopg.Error as error:  # a database that cannot write now: read-only, a deadlock
            raise BackendUnavailable(f"Postgres: {error}") from error
        if stored.created:
            log.info("job.adopted", job_id=job_id, state=State.QUEUED)
        return True

    async def _tell(self, job_id: str, job: Any, error: Exception) -> None:
        """Who follows the job from Redis alone hears that it never will be; one that the ledger knows is another's."""
        thread_id = job.get("thread_id") if isinstance(job, dict) else None
        try:
            check_id("job id", job_id)
            check_thread_id(thread_id if isinstance(thread_id, str) else "")
            await self._services.ledger.snapshot(job_id)
        except InvalidJob:
            return
        except JobNotFound:
            message = storable(f"{type(error).__name__}: {error}")[:2000]
            data = {"code": str(Code.INVALID_INPUT), "message": message}
            event = Event(id="1-1", job_id=job_id, thread_id=str(thread_id), type=EventType.FAILED, data=data)
            with suppress(*REDIS_ERRORS):
                await self._services.events.append(job_id, str(thread_id), 1, [(1, encode_event(event))])

    async def dead_letter(self, message_id: str, why: str, body: bytes | None) -> None:
        """Set a message aside where `doctor` shows it. Raises BackendUnavailable: the message must stay."""
        log.warning("queue.dead_letter", message_id=message_id[:200], reason=why)
        kept = None if body is None else body[:_KEPT_BYTES]
        await self._services.ledger.dead_letter(storable(message_id)[:500], storable(why)[:2000], kept)

    async def adopt_waiting(self) -> int:
        """Adopt due messages that carry jobs and take them out of the queue; how many. Raises redis' errors."""
        redis, keys = self._services.redis, self._services.keys
        # A long queue is walked through, a part each round: what waits behind many wake-ups is found as well.
        due = await self._now_ms()
        waiting = await redis.zrangebyscore(keys.queue, "-inf", due, start=self._from, num=_LOOK)
        carrying = await self._carrying(waiting)
        done = 0
        for start in range(0, len(carrying), _BODIES):
            some = carrying[start : start + _BODIES]
            bodies = await redis.mget([arq_message.JOB_KEY_PREFIX + name for name in some])
            for name, body in zip(some, bodies, strict=True):
                done += body is not None and await self._adopt_waiting_one(name, body)
        # What was taken out has moved the rest up.
        self._from = self._from + len(waiting) - done if len(waiting) == _LOOK else 0
        return done

    async def _carrying(self, waiting: list[bytes]) -> list[str]:
        """Those that are not plain wake-ups, by their ids and sizes; what arq chokes on is left to the consumer."""
        names = []
        for raw in waiting:
            try:
                names.append(raw.decode())
            except UnicodeDecodeError:
                continue
        async with self._services.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.strlen(arq_message.JOB_KEY_PREFIX + name)
            sizes: list[Any] = await pipe.execute(raise_on_error=False)
        return [
            name
            for name, size in zip(names, sizes, strict=True)
            if isinstance(size, int) and size > 0 and not is_wake_up(name, size)
        ]

    async def _adopt_waiting_one(self, message_id: str, body: bytes) -> bool:
        found = job_of(body)
        if isinstance(found, Unreadable) or found[1] is None:
            return False  # the consumer's, once it comes to it
        # Not `dispatching`: the ledger sends a wake-up of its own, and this message goes.
        await self.adopt(message_id, *found, dispatching=False)
        redis, keys = self._services.redis, self._services.keys
        async with redis.pipeline(transaction=True) as pipe:
            pipe.zrem(keys.queue, message_id)
            pipe.delete(arq_message.JOB_KEY_PREFIX + message_id, arq_message.RETRY_KEY_PREFIX + message_id)
            await pipe.execute()
        return True

    async def _now_ms(self) -> int:
        seconds, micros = await self._services.redis.time()
        return int(seconds * 1000 + micros / 1000)
