"""arq delivers, we run: a message is taken only when a slot is free, and whatever ends arq's loop ends no job.

arq's handler claims the job in the ledger, hands it to the runner and returns, so that arq's in-progress key, retry
counter, result and shutdown play no part in correctness.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Retry, Worker, func
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from threadline.contract import arq_message
from threadline.contract.codec import dumps, loads
from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.cancellation import pass_on_cancellation
from threadline_worker.messages import GONE, MISTYPED, NOT_UTF8, Unreadable, is_wake_up, read_call
from threadline_worker.runs import Runs

__all__ = ["Consumer", "later"]

log = structlog.get_logger(__name__)

#: The safety net for a wake-up that was lost, or never sent by a producer that speaks arq alone.
_SLOW_POLL_SECONDS = 0.5
#: The handler only claims and hands over; every call in it has a limit of its own.
_HANDLER_SECONDS = 30
#: arq's in-progress key. A worker killed in mid-claim hides its message for so long; two claims at once are harmless.
_IN_PROGRESS_SECONDS = 5
#: How far a poll reads past messages that cannot be started (in progress elsewhere), or these would hide all others.
_READ_PAST = 100
_PURGE_LOOK = 1_000
#: What is kept of the body of a message that is set aside.
_KEPT_BYTES = 65_536

#: Takes a message's arguments: (message id, job id, the whole job or None).
Handler = Callable[[str, str, Any], Awaitable[None]]
#: Sets a message aside: (message id, reason, body).
DeadLetter = Callable[[str, str, bytes | None], Awaitable[None]]


def later(seconds: float) -> Retry:
    """What a handler raises to leave the message in the queue for a while."""
    return Retry(defer=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads workers


class _TapWorker(Worker):
    """arq's worker with a tap: it starts as many messages as there are free slots, and is woken by a publish."""

    def __init__(
        self,
        *args: Any,
        runs: Runs,
        may_claim: Callable[[], bool],
        wake: asyncio.Event,
        on_gone: Callable[[str], Awaitable[None]],
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.in_progress_timeout_s = _IN_PROGRESS_SECONDS
        self._runs = runs
        self._may_claim = may_claim
        self._wake = wake
        self._on_gone = on_gone

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Arq's way out for a message without a body; all else that it cannot run, `read_call` makes a call."""
        await super().finish_failed_job(job_id, result_data)
        await self._on_gone(job_id)

    async def _poll_iteration(self) -> None:
        pass_on_cancellation()
        free = self._runs.free if self._may_claim() else 0
        self.allow_pick_jobs = free > 0
        # Messages in progress elsewhere do not count: with one slot, one of them would starve the whole queue.
        self.max_jobs = self.job_counter + free
        self.queue_read_limit = free + _READ_PAST
        self._wake.clear()
        before = self._jobs_started()
        await super()._poll_iteration()
        if self._jobs_started() == before or self._runs.free <= 0:
            try:
                async with asyncio.timeout(_SLOW_POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass


class Consumer:
    """`run()` until it is cancelled. `may_claim` closes the tap (draining, servers away, clock off)."""

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        runs: Runs,
        *,
        handler: Handler,
        dead_letter: DeadLetter,
        may_claim: Callable[[], bool],
        on_control: Callable[[dict[str, Any]], None],
        on_purged: Callable[[str], None],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._runs = runs
        self._handler = handler
        self._dead_letter = dead_letter
        self._may_claim = may_claim
        self._on_control = on_control
        self._on_purged = on_purged
        redis.job_serializer = dumps
        redis.job_deserializer = loads
        redis.default_queue_name = keys.queue

    async def run(self) -> None:
        """Take messages until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen_for_ever(), name="listen")
            tasks.create_task(self._poll_for_ever(), name="poll")

    async def _poll_for_ever(self) -> None:
        delay = 0.1
        while True:
            worker = self._worker()
            try:
                await worker.async_run()
            except ResponseError as error:  # also a key of the wrong type
                log.warning("queue.failed", error=reason(error))
                await self._purge()
            except REDIS_ERRORS as error:
                log.warning("queue.failed", error=reason(error))
            except Exception as error:  # noqa: BLE001 - arq ends on messages that it chokes on (findings.md); nothing else may
                log.warning("queue.failed", error=f"{type(error).__name__}: {error}")
                await self._purge()
            finally:
                # arq's handlers are claims under way: they are left to finish, their runs are in the ledger.
                await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
            await asyncio.sleep(delay)
            delay = 0.1 if self._jobs(worker) else min(delay * 2, 2.0)

    @staticmethod
    def _jobs(worker: Worker) -> bool:
        return bool(worker.jobs_complete or worker.jobs_retried)

    def _worker(self) -> Worker:
        return _TapWorker(
            [
                func(
                    self._take,
                    name=arq_message.FUNCTION,
                    keep_result=0,
                    max_tries=sys.maxsize,
                    timeout=_HANDLER_SECONDS,
                )
            ],
            queue_name=self._keys.queue,
            redis_pool=self._redis,
            handle_signals=False,
            max_jobs=max(self._runs.slots, 1) + 1,
            poll_delay=0,
            keep_result=0,
            max_tries=sys.maxsize,
            # arq writes a result only of a message without a body, and drops it: keep_result is 0.
            job_serializer=lambda _result: b"",
            job_deserializer=read_call,
            log_results=False,
            runs=self._runs,
            may_claim=self._may_claim,
            wake=self._runs.freed,
            on_gone=self._gone,
        )

    async def _take(self, ctx: dict[str, Any], job_id: Any = None, job: Any = None, *_more: Any) -> None:
        message_id = ctx["job_id"]
        if isinstance(job_id, Unreadable):
            try:
                await self._dead_letter(message_id, job_id.why, job_id.body[:_KEPT_BYTES])
            except BackendUnavailable:
                raise later(1.0) from None
            self._note_purged(message_id, job_id.why)
            return
        if self._runs.free <= 0:
            raise later(0.2)
        await self._handler(message_id, job_id, job)

    async def _gone(self, message_id: str) -> None:
        """The body is not there. A lost wake-up is repeated by the sweep; a lost job shall be seen."""
        if not is_wake_up(message_id):
            try:
                await self._dead_letter(message_id, GONE, None)
            except BackendUnavailable as error:
                log.warning("queue.failed", error=str(error))
        self._note_purged(message_id, GONE)

    def _note_purged(self, message_id: str, why: str) -> None:
        log.warning("queue.purged", message_id=message_id[:200], reason=why)
        self._on_purged(why)

    async def _listen_for_ever(self) -> None:
        """Wake-ups and control messages. Lost ones cost a slow poll, or a beat."""
        delay = 0.1
        while True:
            try:
                await self._listen()
            except REDIS_ERRORS as error:
                log.debug("queue.failed", error=reason(error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _listen(self) -> None:
        pubsub = Redis(connection_pool=self._redis.connection_pool).pubsub()
        try:
            await pubsub.subscribe(self._keys.wake, self._keys.control)
            while True:
                pass_on_cancellation()
                message = await pubsub.get_message(ignore_subscribe_messages=False, timeout=30.0)
                if message is None:
                    await pubsub.ping()
                    continue
                if message["type"] == "message" and message["channel"] == self._keys.control.encode():
                    self._control(message["data"])
                # A wake-up, or a (re)subscription: something may have been missed.
                self._runs.freed.set()
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _control(self, data: bytes) -> None:
        try:
            command = loads(data)
        except ValueError:
            return
        if isinstance(command, dict):
            self._on_control(command)

    async def _purge(self) -> None:
        """Remove what arq cannot read, or it would end the loop again."""
        try:
            for raw in await self._redis.zrange(self._keys.queue, 0, _PURGE_LOOK - 1):
                await self._purge_one(raw)
        except REDIS_ERRORS as error:
            log.warning("queue.failed", error=reason(error))

    async def _purge_one(self, raw: bytes) -> None:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            await self._drop(raw, raw.decode("utf-8", "replace"), NOT_UTF8)
            return
        for prefix in (arq_message.JOB_KEY_PREFIX, arq_message.RETRY_KEY_PREFIX):
            if await self._redis.type(prefix + name) not in {b"string", b"none"}:
                await self._drop(raw, name, MISTYPED)
                return

    async def _drop(self, raw: bytes, name: str, why: str) -> None:
        await self._dead_letter(name[:200].replace("\0", ""), why, None)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.queue, raw)
            for prefix in (
                arq_message.JOB_KEY_PREFIX,
                arq_message.RETRY_KEY_PREFIX,
                arq_message.IN_PROGRESS_KEY_PREFIX,
            ):
                pipe.delete(prefix.encode() + raw)
            await pipe.execute()
        self._note_purged(name, why)
