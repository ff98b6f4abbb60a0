"""One queue's tap: arq takes as many messages as it is told to, and what makes it stumble is removed, not met again.

A tap that fails rests for a moment; the taps of other queues, and the runs, go on.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.utils import timestamp_ms
from arq.worker import Worker, func
from redis.exceptions import ResponseError

from threadline.contract import arq_message
from threadline.contract.keys import Keys
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.messages import MISTYPED, NOT_UTF8, read_call

__all__ = ["Tap"]

log = structlog.get_logger(__name__)

#: The handler only claims and hands over; every call in it has a limit of its own.
_HANDLER_SECONDS = 30
#: arq's in-progress key. A worker killed in mid-claim hides its message for so long; two claims at once are harmless.
_IN_PROGRESS_SECONDS = 5
#: How far a look reads past messages that cannot be started (in progress elsewhere), or these would hide all others.
_READ_PAST = 100
#: Where these are all in progress, it reads on in larger pages: a fleet has thousands in its hands for a moment.
_PAGE = 500
_MOST_READ = 10_000
_IN_PROGRESS = arq_message.IN_PROGRESS_KEY_PREFIX.encode()
_PURGE_LOOK = 1_000
_FIRST_REST = 0.1
_LONGEST_REST = 2.0

#: Sets a message aside: (message id, reason, body).
DeadLetter = Callable[[str, str, bytes | None], Awaitable[None]]


class _TapWorker(Worker):
    """arq's worker without its own loop: somebody else says when to look, and for how many."""

    def __init__(
        self,
        *args: Any,
        is_begun: Callable[[str], bool],
        on_begun: Callable[[str], None],
        on_gone: Callable[[str], Awaitable[None]],
        on_done: Callable[[str], None],
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.in_progress_timeout_s = _IN_PROGRESS_SECONDS
        self._is_begun = is_begun
        self._on_begun = on_begun
        self._on_gone = on_gone
        self._on_done = on_done
        self._begun = 0
        self._most = 0
        self._crowded = False

    async def take(self, most: int) -> int:
        """Begin with at most so many messages; how many there were."""
        self.allow_pick_jobs = most > 0
        # Messages in progress elsewhere do not count: with one slot, one of them would starve the whole queue.
        self.max_jobs = self.job_counter + most
        self.queue_read_limit = most + _READ_PAST
        before, self._most = self._begun, most
        await self._poll_iteration()
        return self._begun - before

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Begin with no more than `take` was told to, and with what nobody else has begun, however far behind.

        arq would go through the whole list, four commands for each message that somebody was quicker with: of 200
        workers that read the same head of a queue, nearly all are. So one command asks for many, and who has met others
        at the head takes from all that it has read, in no order.
        """
        page, asked, offset, until = job_ids, self.queue_read_limit, 0, self._begun + self._most
        while page and offset < _MOST_READ:
            await self._begin_of(page, until)
            offset += len(page)
            if self._begun >= until or len(page) < asked:
                return
            asked = _PAGE
            page = await self.pool.zrangebyscore(self.queue_name, "-inf", timestamp_ms(), start=offset, num=_PAGE)

    async def _begin_of(self, left: list[bytes], until: int) -> None:
        while (free := until - self._begun) > 0 and left:
            looked, left = left[: free + _READ_PAST], left[free + _READ_PAST :]
            marks = await self.pool.mget([_IN_PROGRESS + job_id for job_id in looked])
            # Not what is in our own hands, either: a claim may take longer than arq's mark lives.
            waiting = [
                job_id
                for job_id, mark in zip(looked, marks, strict=True)
                if mark is None and not self._is_begun(job_id.decode(errors="replace"))
            ]
            if self._crowded:
                random.shuffle(waiting)
            before, tried = self._begun, waiting[:free]
            await super().start_jobs(tried)
            left = waiting[free:] + left
            self._crowded = len(waiting) < len(looked) or self._begun - before < len(tried)

    def run_job(self, job_id: str, score: int) -> Coroutine[Any, Any, None]:
        """Counted when it is begun: arq's own figures count what has ended twice for a while."""
        self._begun += 1
        self._on_begun(job_id)
        return self._run_job(job_id, score)

    async def _run_job(self, message_id: str, score: int) -> None:
        try:
            await super().run_job(message_id, score)
        finally:
            self._on_done(message_id)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Arq's way out for a message without a body; all else that it cannot run, `read_call` makes a call."""
        await super().finish_failed_job(job_id, result_data)
        await self._on_gone(job_id)


class Tap:
    """`take(most)` again and again, `close()` at the end. `served` is whoever shares the slots' own.

    `handler` is arq's; `on_gone` is told of messages without a body, `note_purged` of what was removed and why,
    `on_done` that a handler has ended.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        queue: str,
        *,
        slots: int,
        handler: Callable[..., Coroutine[Any, Any, None]],
        dead_letter: DeadLetter,
        on_gone: Callable[[str], Awaitable[None]],
        note_purged: Callable[[str, str], None],
        on_done: Callable[[], None],
    ) -> None:
        self.queue = queue
        self.served = 0
        self._redis = redis
        self._keys = keys
        self._key = keys.queue_of(queue)
        self._slots = slots
        self._handler = handler
        self._arriving: set[str] = set()
        self._dead_letter = dead_letter
        self._on_gone = on_gone
        self._note_purged = note_purged
        self._on_done = on_done
        self._worker = self._new_worker()
        self._left: set[asyncio.Task[Any]] = set()
        self._delay = _FIRST_REST
        self._rests_until = float("-inf")

    @property
    def arriving(self) -> int:
        """Messages that were begun and whose handlers have not ended."""
        return len(self._arriving)

    @property
    def rest(self) -> float:
        """For how many seconds it takes nothing, after a failure."""
        return max(self._rests_until - time.monotonic(), 0.0)

    async def take(self, most: int) -> int:
        """Begin with at most `most` due messages; how many there were. 0 only looks after those begun before."""
        if self.rest:
            return 0
        try:
            return await self._worker.take(most)
        except ResponseError as error:  # also a key of the wrong type
            log.warning("queue.failed", queue=self.queue, error=reason(error))
            await self._purge()
        except REDIS_ERRORS as error:
            log.warning("queue.failed", queue=self.queue, error=reason(error))
        except Exception as error:  # noqa: BLE001 - arq ends on messages that it chokes on (findings.md); nothing else may
            log.warning("queue.failed", queue=self.queue, error=f"{type(error).__name__}: {error}")
            await self._purge()
        self._begin_anew()
        return 0

    async def close(self) -> None:
        """Handlers are claims under way: they are left to finish, their runs are in the ledger."""
        await asyncio.gather(*self._left, *self._worker.tasks.values(), return_exceptions=True)

    def _begin_anew(self) -> None:
        before = self._worker
        self._rests_until = time.monotonic() + self._delay
        handled = before.jobs_complete or before.jobs_retried
        self._delay = _FIRST_REST if handled else min(self._delay * 2, _LONGEST_REST)
        for task in before.tasks.values():
            self._left.add(task)
            task.add_done_callback(self._ended)
        self._worker = self._new_worker()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # Redis was away; the message comes again

    async def _handle(self, ctx: dict[str, Any], *arguments: Any) -> None:
        try:
            await self._handler(ctx, *arguments)
        finally:
            # What arq has still to do takes no slot, and the run of a claim is counted as one.
            self._landed(ctx["job_id"])

    def _landed(self, message_id: str) -> None:
        if message_id in self._arriving:
            self._arriving.remove(message_id)
            self._on_done()

    def _new_worker(self) -> _TapWorker:
        return _TapWorker(
            [
                func(
                    self._handle,
                    name=arq_message.FUNCTION,
                    keep_result=0,
                    max_tries=sys.maxsize,
                    timeout=_HANDLER_SECONDS,
                )
            ],
            queue_name=self._key,
            # One for all queues, whose keys have the form that users' rights are given for (deploy/redis/users.acl).
            health_check_key=f"{self._keys.queue}:health-check",
            redis_pool=self._redis,
            handle_signals=False,
            max_jobs=max(self._slots, 1) + 1,
            poll_delay=0,
            keep_result=0,
            max_tries=sys.maxsize,
            # arq writes a result only of a message without a body, and drops it: keep_result is 0.
            job_serializer=lambda _result: b"",
            job_deserializer=read_call,
            log_results=False,
            is_begun=self._arriving.__contains__,
            on_begun=self._arriving.add,
            on_gone=self._on_gone,
            on_done=self._landed,
        )

    async def _purge(self) -> None:
        """Remove what arq cannot read, or it would fail again."""
        try:
            for raw in await self._redis.zrange(self._key, 0, _PURGE_LOOK - 1):
                await self._purge_one(raw)
        except REDIS_ERRORS as error:
            log.warning("queue.failed", queue=self.queue, error=reason(error))

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
            pipe.zrem(self._key, raw)
            for prefix in (
                arq_message.JOB_KEY_PREFIX,
                arq_message.RETRY_KEY_PREFIX,
                arq_message.IN_PROGRESS_KEY_PREFIX,
            ):
                pipe.delete(prefix.encode() + raw)
            await pipe.execute()
        self._note_purged(name, why)
