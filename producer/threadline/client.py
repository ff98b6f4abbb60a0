"""The client of other services: an accepted job is never lost, and bad input is refused before anything is stored."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import msgspec
from psycopg import AsyncConnection
from redis.asyncio import Redis

from threadline import dispatch
from threadline.contract import arq_message
from threadline.contract.codec import canonical, dumps
from threadline.contract.events import Event, EventId, encode_event
from threadline.contract.job import JobRequest, JobStatus, check_id, check_thread_id, check_user_id, new_id, seconds
from threadline.contract.keys import Keys
from threadline.contract.signature import sign
from threadline.contract.states import ENDED, State, Transition
from threadline.errors import BackendUnavailable, ConfigurationError, InvalidJob, NeedsDatabase
from threadline.job import Job
from threadline.ledger.database import Database
from threadline.ledger.ledger import Enqueued, Ledger, Snapshot, on_busy
from threadline.ledger.sql import Queries
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import EventLog
from threadline.log.follow import follow
from threadline.redis_client import REDIS_ERRORS, connect_redis, reason
from threadline.settings import ClientSettings

__all__ = ["Client"]


class Client:
    """Enqueues jobs, follows them and awaits their results.

    `redis_url` and `database_url` are the two servers; with Redis alone a client enqueues, follows and awaits results,
    everything else raises NeedsDatabase. Connections open on first use. Use it as an async context manager, or call
    `aclose()`. Raises ConfigurationError when neither server is named or a URL cannot be read.
    """

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        database_url: str | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        settings = settings or ClientSettings()
        self._settings = msgspec.structs.replace(
            settings,
            redis_url=redis_url or settings.redis_url,
            database_url=database_url or settings.database_url,
        )
        if not (self._settings.redis_url or self._settings.database_url):
            raise ConfigurationError("set REDIS_URL and DATABASE_URL (or run `threadline dev`, which prints them)")
        self.keys: Keys = settings.keys
        self._redis: Redis | None = None
        self._log: EventLog | None = None
        if self._settings.redis_url:
            self._redis = connect_redis(self._settings.redis_url)
            self._log = EventLog(
                self._redis, self.keys, max_events=settings.event_max, ttl_seconds=settings.event_ttl_seconds
            )
        self._database: Database | None = None
        self._ledger: Ledger | None = None
        if self._settings.database_url:
            self._database = Database(self._settings.database_url, application_name="threadline-client")
            self._ledger = Ledger(self._database, Queries(self.keys.schema), lease_seconds=self._settings.lease_seconds)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Client:
        """A client of the environment's servers. Raises ConfigurationError that names the variable."""
        return cls(settings=ClientSettings.from_env(env))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        try:
            if self._database is not None:
                await self._database.close()
        finally:
            if self._redis is not None:
                await self._redis.aclose()

    async def enqueue(
        self,
        agent: str,
        input: str | dict[str, Any],  # noqa: A002 - the public contract's name
        *,
        thread_id: str | None = None,
        user_id: str = "default",
        on_busy: str = "enqueue",
        idempotency_key: str | None = None,
        run_at: datetime | None = None,
        expires: float | timedelta | None = None,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - the job's, not this call's
        metadata: dict[str, Any] | None = None,
        stream_modes: Sequence[str] = ("updates",),
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        checkpoint_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job:
        """Store a job and hand it to the workers; the job exists once this returns (or once `connection` commits).

        `input` is text (one human message) or the graph's input. Without `thread_id` a new thread is made. `on_busy`
        is enqueue, reject, interrupt or rollback. `expires` (until the first claim) and `timeout` (running time) are
        seconds or timedelta. Raises InvalidJob, UnknownAgent, ThreadBusy, ThreadOwnedByAnother, BackendUnavailable,
        NotMigrated, NeedsDatabase. After BackendUnavailable it is safe to repeat with the same `idempotency_key`.
        """
        request = JobRequest(
            job_id=self._new_id("job", user_id, idempotency_key),
            agent=agent,
            input=input,
            thread_id=(
                self._new_id("thread", user_id, idempotency_key) if thread_id is None else check_thread_id(thread_id)
            ),
            user_id=user_id,
            on_busy=_on_busy(on_busy),
            idempotency_key=idempotency_key,
            run_at=run_at,
            expires=seconds("expires", expires),
            timeout=seconds("timeout", timeout),
            metadata={} if metadata is None else metadata,
            stream_modes=_listed(stream_modes),
            interrupt_before=_listed(interrupt_before),
            interrupt_after=_listed(interrupt_after),
            checkpoint_id=checkpoint_id,
        ).check()
        if self._ledger is None:
            if connection is not None:
                raise NeedsDatabase("enqueue(connection=…) writes the ledger: give the client a database_url")
            return await self._carry(request)
        stored = await self._ledger.enqueue(
            request,
            fingerprint=request.fingerprint(made_up_thread=thread_id is None),
            # In the caller's transaction nothing is sent: dispatch follows the commit (L3).
            dispatching=self._redis is not None and connection is None,
            connection=connection,
        )
        if connection is None and stored.created and stored.head:
            await self._dispatch(self._ledger, request, stored)
        return Job(self, stored.job_id, stored.thread_id, user_id)

    async def job(self, job_id: str, *, user_id: str | None = None) -> Job:
        """The handle of a known job. Raises JobNotFound, ThreadOwnedByAnother."""
        check_id("job id", job_id)
        if self._ledger is None:
            return Job(self, job_id, "", user_id)
        snapshot = await self._ledger.snapshot(job_id, user_id=user_id)
        return Job(self, job_id, snapshot.status.thread_id, user_id)

    async def jobs(
        self,
        *,
        state: str | None = None,
        thread_id: str | None = None,
        user_id: str | None = None,
        limit: int = 50,
    ) -> list[JobStatus]:
        """Jobs that match, newest first. Raises InvalidJob for an unknown state, NeedsDatabase."""
        ledger = self._need("jobs()")
        return await ledger.jobs(
            state=_state(state),
            thread_id=None if thread_id is None else check_thread_id(thread_id),
            user_id=None if user_id is None else check_user_id(user_id),
            limit=max(1, min(limit, 10_000)),
        )

    async def retry(self, job_id: str, *, user_id: str | None = None) -> Job:
        """Continue a failed or cancelled job from its last checkpoint, as the same job with a new epoch.

        Raises JobNotFound, InvalidJob (it has not ended), ThreadMovedOn, ThreadOwnedByAnother, NeedsDatabase.
        """
        ledger = self._need("retry()")
        status = await ledger.retry(check_id("job id", job_id), user_id=user_id)
        await self._announce(ledger, job_id, Transition.RETRY)
        return Job(self, job_id, status.thread_id, user_id)

    # What a Job asks for:

    async def snapshot(self, job_id: str, user_id: str | None) -> Snapshot:
        """A job as the ledger has it. Raises JobNotFound, ThreadOwnedByAnother, NeedsDatabase."""
        return await self._need("status()").snapshot(check_id("job id", job_id), user_id=user_id)

    async def cancel(self, job_id: str, user_id: str | None, *, rollback: bool = False) -> JobStatus:
        """Queued ends at once, running is asked to stop, ended is a no-op."""
        ledger = self._need("cancel()")
        status = await ledger.cancel(check_id("job id", job_id), user_id=user_id, rollback=rollback)
        if status.state is State.CANCELLED:
            await self._announce(ledger, job_id, Transition.CANCEL)
        if status.state is State.RUNNING and self._redis is not None:
            # The quick way; the worker's beat finds the request in the ledger anyway.
            with suppress(*REDIS_ERRORS):
                await self._redis.publish(self.keys.control, dumps({"cancel": job_id}))
        return status

    async def events(self, job_id: str, user_id: str | None, after: str | None) -> AsyncGenerator[Event, None]:
        """The job's log; see `Job.events`."""
        if self._redis is None:
            raise BackendUnavailable("events come through Redis: set REDIS_URL or give the client a redis_url")
        ledger = self._ledger
        if ledger is not None:
            await ledger.snapshot(check_id("job id", job_id), user_id=user_id)

        async def ending() -> Event | None:
            assert ledger is not None  # noqa: S101 - only given to follow() when there is one
            row = await ledger.database.row(ledger.queries["transition"], {"job_id": job_id})
            return event_of(row) if row is not None and row["state"] in ENDED else None

        position = None if after is None else _position(after)
        stream = follow(self._redis, self.keys, job_id, after=position, ending=ending if ledger else None)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    @property
    def has_ledger(self) -> bool:
        """Whether this client can ask Postgres."""
        return self._ledger is not None

    @property
    def has_redis(self) -> bool:
        """Whether this client can follow."""
        return self._redis is not None

    def _need(self, call: str) -> Ledger:
        if self._ledger is None:
            raise NeedsDatabase(f"{call} reads the ledger: set DATABASE_URL or give the client a database_url")
        return self._ledger

    async def _dispatch(self, ledger: Ledger, request: JobRequest, stored: Enqueued) -> None:
        """The job is committed; Redis only makes it quick. What fails here the sweep repairs."""
        if self._redis is None:
            return
        message = arq_message.Message(
            arq_message.message_id(stored.job_id, stored.epoch, stored.dispatch_n), [stored.job_id], _now_ms()
        )
        try:
            await dispatch.send(self._redis, self.keys, [message])
            await self._announce_queued(request)
        except REDIS_ERRORS:
            with suppress(BackendUnavailable):
                await ledger.undispatch(stored.job_id, stored.dispatch_n)

    async def _announce_queued(self, request: JobRequest) -> None:
        if self._log is not None:
            event = queued_event(request.job_id, request.thread_id, request.agent)
            await self._log.append(request.job_id, request.thread_id, 0, [(1, encode_event(event))])

    async def _announce(self, ledger: Ledger, job_id: str, transition: Transition) -> None:
        """P1: tell followers of a transition made here at once; where that fails, a worker's sweep tells them."""
        if self._log is None:
            return
        with suppress(*REDIS_ERRORS):  # BackendUnavailable is an OSError, too
            row = await ledger.database.row(ledger.queries["transition"], {"job_id": job_id})
            if row is None or row["transition"] != transition:
                return  # it went on since: whoever made it do so tells
            queued = encode_event(queued_event(job_id, row["thread_id"], row["agent"]))
            events = [(1, encode_event(event_of(row)))]
            await self._log.append(job_id, row["thread_id"], row["epoch"], events, queued=queued)

    def _new_id(self, what: str, user_id: str, idempotency_key: str | None) -> str:
        """A fresh id; without a ledger to look the key up in, the key itself says which job (and new thread) it is."""
        if self._ledger is not None or idempotency_key is None:
            return new_id()
        named = canonical([self.keys.namespace, what, user_id, idempotency_key])
        return hashlib.sha256(named).hexdigest()[:32]

    async def _carry(self, request: JobRequest) -> Job:
        """L5: the message is the only copy until a worker adopts it into the ledger."""
        if self._redis is None:
            raise NeedsDatabase("enqueue() needs REDIS_URL or DATABASE_URL")
        job = sign(request.as_json(), self._settings.enqueue_keys)
        # Another request under the same key has the same job id: it must not take the place of the first one's body.
        message = arq_message.Message(
            f"{request.job_id}-{request.fingerprint()[:12]}",
            [request.job_id, job],
            _now_ms(),
            ttl_ms=arq_message.CARRIED_TTL_MS,
        )
        try:
            await dispatch.send(self._redis, self.keys, [message])
        except REDIS_ERRORS as error:
            raise BackendUnavailable(
                f"Redis: {reason(error)}: the job was not accepted for certain; repeat it"
            ) from error
        with suppress(*REDIS_ERRORS):
            await self._announce_queued(request)
        return Job(self, request.job_id, request.thread_id, request.user_id)


_on_busy = on_busy


def _listed(names: Any) -> Any:
    """Any sequence as a list; what is none, or a str, goes on to JobRequest.check as it is."""
    return list(names) if isinstance(names, Iterable) and not isinstance(names, (str, bytes, Mapping)) else names


def _state(value: str | None) -> State | None:
    if value is None:
        return None
    try:
        return State(value)
    except ValueError as error:
        raise InvalidJob(f"state {value!r}: use one of {', '.join(State)}") from error


def _position(after: str) -> EventId:
    try:
        return EventId.parse(after)
    except ValueError as error:
        raise InvalidJob(f"after={after!r}: {error}") from error


def _now_ms() -> int:
    return int(time.time() * 1000)
