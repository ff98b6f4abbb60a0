"""A job that a message carries is in the ledger before its message goes; what can never be one is set aside (L5).

Safe to repeat, by the same worker and by others at once: the ledger knows the job by its id.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import structlog

from threadline.contract import arq_message
from threadline.contract.codec import dumps
from threadline.contract.events import Event, EventType
from threadline.contract.job import check_id, check_thread_id, decode_request
from threadline.contract.signature import verify
from threadline.contract.states import Code, State
from threadline.encryption.wire import opened_message
from threadline.errors import BackendUnavailable, InvalidJob, ThreadlineError
from threadline.ledger.database import refused
from threadline.redis_client import REDIS_ERRORS
from threadline_worker.carried import CarriedJobs
from threadline_worker.serialise import storable
from threadline_worker.telemetry.job_fields import job_fields

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Adoption"]

log = structlog.get_logger(__name__)

#: What one round may take: the sweep has more to do, above all to look for dead workers.
_ROUND_SECONDS = 0.25
_KEPT_BYTES = 65_536


class Adoption:
    """`adopt()` for the message in hand, `adopt_waiting()` for those that no slot is free for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Adopting only inserts: also what waits in a queue that others serve, or nobody now.
        settings = services.settings
        known = dict.fromkeys((*settings.queues, *settings.client.queues.names))
        self._carried = [CarriedJobs(services.redis, services.keys, queue) for queue in known]

    async def adopt(self, message_id: str, job_id: str, job: Any, *, dispatching: bool) -> bool:
        """Insert the job. `dispatching`: the message in hand is its wake-up, unless the job's queue is not served here.

        False: this message is of no more use: the job can never become one and is set aside, or is for others to wake.
        Raises BackendUnavailable; the message must stay then.
        """
        try:
            if not isinstance(job, dict) or job.get("job_id") != job_id:
                raise InvalidJob("the message's job is not an object with the same job_id")
            verify(job, self._services.settings.client.enqueue_keys)
            request = decode_request(opened_message(self._services.ledger.vault, job))
            served = request.in_queue in self._services.settings.queues
            stored = await self._services.ledger.enqueue(
                request, fingerprint=request.fingerprint(), dispatching=dispatching and served, check_agent=False
            )
        except BackendUnavailable:
            raise
        except (ThreadlineError, psycopg.DataError) as error:
            await self.dead_letter(message_id, f"{type(error).__name__}: {error}", dumps(job))
            await self._tell(job_id, job, error)
            return False
        except psycopg.Error as error:  # a database that cannot write now: read-only, a deadlock
            raise refused(error) from error
        if stored.created:
            fields = {"job_id": job_id, "thread_id": request.thread_id, "agent": request.agent, "epoch": 0}
            log.info("job.adopted", **job_fields({**fields, "traceparent": request.traceparent}), state=State.QUEUED)
        return served

    async def _tell(self, job_id: str, job: Any, error: Exception) -> None:
        """Who follows the job from Redis alone hears that it never will be; one that the ledger knows is another's."""
        thread_id = job.get("thread_id") if isinstance(job, dict) else None
        try:
            check_id("job id", job_id)
            check_thread_id(thread_id if isinstance(thread_id, str) else "")
        except InvalidJob:
            return
        if await self._services.ledger.transition(job_id) is None:
            message = storable(f"{type(error).__name__}: {error}")[:2000]
            data = {"code": str(Code.INVALID_INPUT), "message": message}
            event = Event(id="1-1", job_id=job_id, thread_id=str(thread_id), type=EventType.FAILED, data=data)
            with suppress(*REDIS_ERRORS):
                events = self._services.events
                await events.append(job_id, str(thread_id), 1, [(1, events.encode(event))])

    async def dead_letter(self, message_id: str, why: str, body: bytes | None) -> None:
        """Set a message aside where `doctor` shows it. Raises BackendUnavailable: the message must stay."""
        # Why may quote the message; `threadline doctor` shows it.
        log.warning("queue.dead_letter", message_id=message_id[:200], says=why)
        kept = None if body is None else body[:_KEPT_BYTES]
        await self._services.ledger.dead_letter(storable(message_id)[:500], storable(why)[:2000], kept)

    async def adopt_waiting(self) -> int:
        """Adopt due messages that carry jobs and take them out of the queue; how many. Raises redis' errors."""
        return sum([await self._adopt_from(carried) for carried in self._carried])

    async def _adopt_from(self, carried: CarriedJobs) -> int:
        done = 0
        async with aclosing(carried.waiting(_ROUND_SECONDS / len(self._carried))) as found:
            async for message_id, job_id, job in found:
                # Not `dispatching`: the ledger sends a wake-up of its own, and this message goes.
                await self.adopt(message_id, job_id, job, dispatching=False)
                await self._take_out(carried.key, message_id)
                done += 1
        return done

    async def _take_out(self, queue: str, message_id: str) -> None:
        async with self._services.redis.pipeline(transaction=True) as pipe:
            pipe.zrem(queue, message_id)
            pipe.delete(arq_message.JOB_KEY_PREFIX + message_id, arq_message.RETRY_KEY_PREFIX + message_id)
            await pipe.execute()
