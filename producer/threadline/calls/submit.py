"""Enqueueing: a job is committed in the ledger or carried whole by Redis, and an accepted one is never lost."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from typing import Any

from msgspec import structs
from psycopg import AsyncConnection

from threadline import dispatch
from threadline.calls.announce import Announcer
from threadline.calls.backends import Backends
from threadline.calls.traces import enqueueing
from threadline.contract import arq_message
from threadline.contract.codec import canonical
from threadline.contract.job import JobRequest, new_id
from threadline.contract.queues import DEFAULT_QUEUE
from threadline.contract.signature import sign
from threadline.encryption.wire import sealed_message_job
from threadline.errors import BackendUnavailable, NeedsDatabase
from threadline.ledger.ledger import Enqueued, Ledger
from threadline.redis_client import REDIS_ERRORS, reason

__all__ = ["Submission"]


class Submission:
    """Takes checked requests."""

    def __init__(self, backends: Backends, announcer: Announcer) -> None:
        self._backends = backends
        self._announcer = announcer

    def new_id(self, what: str, user_id: str, idempotency_key: str | None) -> str:
        """A fresh id; without a ledger to look the key up in, the key itself says which job (and new thread) it is."""
        if self._backends.ledger is not None or idempotency_key is None:
            return new_id()
        named = canonical([self._backends.keys.namespace, what, user_id, idempotency_key])
        return hashlib.sha256(named).hexdigest()[:32]

    async def submit(
        self, request: JobRequest, *, made_up_thread: bool, connection: AsyncConnection[Any] | None
    ) -> tuple[str, str]:
        """Store the job, or find the one that its key names; its job id and thread id. Raises as `Client.enqueue`."""
        request = self._routed(request)
        with enqueueing(request.agent, self._backends.keys.queue_of(request.in_queue), request.traceparent) as trace:
            request = structs.replace(request, traceparent=trace.traceparent)
            stored = await self._submit(request, made_up_thread=made_up_thread, connection=connection)
            trace.made(*stored)
            return stored

    async def _submit(
        self, request: JobRequest, *, made_up_thread: bool, connection: AsyncConnection[Any] | None
    ) -> tuple[str, str]:
        ledger, redis = self._backends.ledger, self._backends.redis
        if ledger is None:
            if connection is not None:
                raise NeedsDatabase("enqueue(connection=…) writes the ledger: give the client a database_url")
            await self._carry(request)
            self._backends.count_enqueued(request.agent)
            return request.job_id, request.thread_id
        stored = await ledger.enqueue(
            request,
            fingerprint=request.fingerprint(made_up_thread=made_up_thread),
            # In the caller's transaction nothing is sent: dispatch follows the commit (L3).
            dispatching=redis is not None and connection is None,
            connection=connection,
        )
        if stored.created:
            self._backends.count_enqueued(request.agent)
        if connection is None and stored.created and stored.head:
            await self.dispatch(ledger, stored, request.agent)
        return stored.job_id, stored.thread_id

    async def dispatch(self, ledger: Ledger, stored: Enqueued, agent: str) -> None:
        """The job is committed; Redis only makes it quick. What fails here the sweep repairs."""
        await self.send(ledger, stored, agent)

    async def send(self, ledger: Ledger, stored: Enqueued, announced_for: str | None = None) -> None:
        """Put the wake-up into the queue, and with an agent's name `queued` into the log: internal jobs have none."""
        redis = self._backends.redis
        if redis is None:
            return
        message = arq_message.Message(
            arq_message.message_id(stored.job_id, stored.epoch, stored.dispatch_n), [stored.job_id], _now_ms()
        )
        try:
            await dispatch.send(redis, self._backends.keys, [message], queue=stored.queue)
        except REDIS_ERRORS:
            with suppress(BackendUnavailable):
                await ledger.undispatch(stored.job_id, stored.dispatch_n)
            return
        if announced_for is not None:
            # Whoever appends first puts it there: also where this client's user may not write logs.
            with suppress(*REDIS_ERRORS):
                await self._announcer.queued(stored.job_id, stored.thread_id, announced_for)

    def _routed(self, request: JobRequest) -> JobRequest:
        """With the queue that the map chooses, unless the caller did. The choice stays, whatever becomes of the map."""
        if request.queue is not None:
            return request
        routed = self._backends.settings.queues.queue_of(request.agent, request.user_id)
        return request if routed is None else structs.replace(request, routed=routed)

    async def _carry(self, request: JobRequest) -> None:
        """L5: the message is the only copy until a worker adopts it into the ledger."""
        redis = self._backends.redis
        if redis is None:
            raise NeedsDatabase("enqueue() needs REDIS_URL or DATABASE_URL")
        settings = self._backends.settings
        job = sign(sealed_message_job(settings.vault, request.as_json()), settings.enqueue_keys)
        [told, *_earlier] = settings.vault.fingerprints(request.fingerprint())
        # Another request under the same key has the same job id: it must not replace the body of the first one. Nor
        # the same one that a changed map has put into another queue: who takes the first would take its body away.
        elsewhere = "" if request.in_queue == DEFAULT_QUEUE else f"-{request.in_queue}"
        message = arq_message.Message(
            f"{request.job_id}-{told.rpartition(':')[2][:12]}{elsewhere}",
            [request.job_id, job],
            _now_ms(),
            ttl_ms=arq_message.CARRIED_TTL_MS,
        )
        try:
            await dispatch.send(redis, self._backends.keys, [message], queue=request.in_queue)
        except REDIS_ERRORS as error:
            raise BackendUnavailable(
                f"Redis: {reason(error)}: the job was not accepted for certain; repeat it"
            ) from error
        with suppress(*REDIS_ERRORS):
            await self._announcer.queued(request.job_id, request.thread_id, request.agent)


def _now_ms() -> int:
    return int(time.time() * 1000)
