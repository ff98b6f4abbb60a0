"""Each second on every worker, idempotent: what was lost, forgotten or is overdue is put right from the ledger (L4)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.contract.arq_message import message_id
from threadline.contract.states import State
from threadline.errors import BackendUnavailable
from threadline.ledger.database import Database, refused
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.adoption import Adoption
from threadline_worker.execution import send_due
from threadline_worker.rescue import Rescuer
from threadline_worker.rights import check_postgres, check_redis, queue_takes_writes
from threadline_worker.telemetry.job_fields import job_fields

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Sweep"]

log = structlog.get_logger(__name__)

#: Rounds between two looks for lost messages, overdue jobs and unannounced transitions.
_SLOW_EVERY = 3
_BATCH = 200
_LEAST_PAUSE = 0.1
#: Of a large fleet so many a round, on average, do what anyone can do: all would ask the same and stand in each other's
#: way. Who watches others for signs of life watches alone, and in every round.
_SWEEPERS = 4
#: Seconds after which a dispatched job that nobody claimed is looked for in the queue.
_LOST_AFTER = 10.0


class Sweep:
    """`run()` until it is cancelled; `soon` set wakes it early."""

    def __init__(self, services: Services, direct: Database, rescuer: Rescuer, adoption: Adoption) -> None:
        self._services = services
        self._adoption = adoption
        self._direct = direct
        self._rescuer = rescuer
        self._connection: AsyncConnection[DictRow] | None = None
        self._rounds = 0
        self._called = False
        self.soon = asyncio.Event()
        self.redis_ok_at = float("-inf")
        self.redis_trouble = ""
        self.postgres_ok_at = float("-inf")
        #: Why Postgres did not answer the last time; why it answers, but takes no jobs from us.
        self.postgres_trouble = ""
        self.postgres_refuses = ""

    def call(self) -> None:
        """Sweep now: something in the ledger has changed."""
        self._called = True
        self.soon.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        try:
            while True:
                async with asyncio.TaskGroup() as both:  # one server that hangs must not hide the other
                    both.create_task(self._round())
                    both.create_task(self._probe())
                pause = self._services.settings.heartbeat * random.uniform(0.9, 1.0)  # noqa: S311 - spreads workers
                try:
                    async with asyncio.timeout(pause):
                        await self.soon.wait()
                    # Notices may come by the hundred: a round serves all that came meanwhile.
                    await asyncio.sleep(_LEAST_PAUSE)
                except TimeoutError:
                    pass
                self.soon.clear()
        finally:
            await self._forget()

    async def _round(self) -> None:
        """Each step on its own: what one row or one server does to a step must not hide the others."""
        self._rounds += 1
        if not await self._step(self._rescue):
            await self._forget()
        steps: list[Callable[[], Awaitable[None]]] = []
        if self._rounds % _SLOW_EVERY == 0 or self.postgres_refuses:
            steps.append(self._look_at_rights)
        if self._called or self.chosen():
            steps += [self._restore, self._adopt, self._dispatch]
            if self._rounds % _SLOW_EVERY == 0:
                steps += [self._overdue, self._lost_messages, self._announce_missed]
        self._called = False
        for step in steps:
            await self._step(step)

    def chosen(self) -> bool:
        """Whether this worker is one of those that do now what anyone can do."""
        return random.random() * (self._rescuer.others + 1) <= _SWEEPERS  # noqa: S311 - spreads workers

    async def _step(self, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except (psycopg.Error, BackendUnavailable, TimeoutError, OSError) as error:
            log.warning("sweep.failed", step=step.__name__.strip("_"), error=reason(error))
            if step == self._rescue:
                self.postgres_trouble = str(refused(error)) if isinstance(error, psycopg.Error) else reason(error)
            return False
        return True

    async def _look_at_rights(self) -> None:
        """F5: a standby, a read-only server and a role without rights take no jobs from us."""
        async with self._services.ledger.database.connection() as connection:
            self.postgres_refuses = await check_postgres(connection, self._services.ledger.queries) or ""

    async def _announce_missed(self) -> None:
        await self._services.announcer.announce_missed()

    async def _adopt(self) -> None:
        """L5: a job that waits in Redis alone, because all slots are full, is in the ledger within a round."""
        try:
            await self._adoption.adopt_waiting()
        except BackendUnavailable:  # a ConnectionError as well; the round answers for Postgres
            raise
        except REDIS_ERRORS as error:
            log.debug("sweep.failed", error=reason(error))

    async def _rescue(self) -> None:
        """The rescuer's session is its own: its age is part of the evidence (V2)."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._direct.connect()
            self._rescuer.begin()
        async with asyncio.timeout(self._direct.limit):
            rows = await self._rescuer.look(self._connection)
        self.postgres_ok_at = time.monotonic()
        self.postgres_trouble = ""
        self._called = self._called or bool(rows)  # what was rescued waits for nobody else's turn
        metrics = self._services.metrics
        for row in rows:
            log.warning(
                "job.rescued",
                **job_fields(row),
                state=row["state"],
                from_worker=row["previous_worker"],
                stalls=row["stalls"],
            )
            metrics.jobs_rescued.labels(cause="dead_worker").inc()
            if row["state"] != State.QUEUED and row["kind"] != "internal":
                metrics.jobs_finished.labels(agent=row["agent"], state=row["state"], code=row["code"]).inc()
            self._services.traces.taken(row)
            await self._services.announcer.announce(row)

    async def _restore(self) -> None:
        """O4: rollbacks whose worker died between ending the job and restoring the thread."""
        while (thread_id := await self._services.ledger.restore()) is not None:
            log.info("thread.restored", thread_id=thread_id)

    async def _dispatch(self) -> None:
        while due := await self._services.ledger.dispatch_due(limit=_BATCH):
            try:
                await send_due(self._services.redis, self._services.keys, due)
            except REDIS_ERRORS as error:
                log.warning("dispatch.failed", jobs=len(due), error=reason(error))
                for job in due:
                    await self._services.ledger.undispatch(job.job_id, job.n)
                return
            if len(due) < _BATCH:
                return

    async def _overdue(self) -> None:
        settings, ledger = self._services.settings, self._services.ledger
        rows = await ledger.expire()
        late = await ledger.enforce_deadlines(settings.job_timeout, grace=settings.lease)
        for row in late:
            self._services.traces.taken(row)
        rows += late
        if rows:
            self._services.courier.soon.set()
        for row in rows:
            if row.get("kind") != "internal":
                self._services.metrics.jobs_finished.labels(
                    agent=row["agent"], state=row["state"], code=row["code"] or ""
                ).inc()
            log.info("job.finished", **job_fields(row), state=row["state"], code=row["code"])

    async def _lost_messages(self) -> None:
        """Dispatched long ago, still queued, and not in the queue: dispatched again."""
        served = self._services.settings.queues
        waiting = await self._services.ledger.dispatched_long_ago(_LOST_AFTER, served)
        if not waiting:
            return
        redis, keys = self._services.redis, self._services.keys
        try:
            async with redis.pipeline(transaction=False) as pipe:
                for job in waiting:
                    pipe.zscore(keys.queue_of(job.queue), message_id(job.job_id, job.epoch, job.n))
                scores: list[Any] = await pipe.execute()
        except REDIS_ERRORS:
            return
        for job, score in zip(waiting, scores, strict=True):
            if score is None:
                await self._services.ledger.undispatch(job.job_id, job.n)
                self._services.metrics.jobs_rescued.labels(cause="lost_message").inc()

    async def _probe(self) -> None:
        """Redis takes writes from us: not so a replica, a full one, or a user without the right."""
        try:
            redis, keys = self._services.redis, self._services.keys
            queue = keys.queue_of(self._services.settings.queues[0])
            # All rights are looked at now and then; what is refused, until it is granted.
            if self.redis_trouble or self._rounds % _SLOW_EVERY == 0:
                await check_redis(redis, keys, queue)
            else:
                await queue_takes_writes(redis, queue)
        except REDIS_ERRORS as error:
            self.redis_trouble = reason(error)
        else:
            self.redis_ok_at = time.monotonic()
            self.redis_trouble = ""

    async def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not close(): after an outage it could wait for an answer.
            connection.pgconn.finish()
