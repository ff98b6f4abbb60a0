"""arq delivers, we run: a message is taken only when a slot is free, and no queue's backlog starves another.

arq's handler claims the job in the ledger, hands it to the runner and returns, so that arq's in-progress key, retry
counter, result and shutdown play no part in correctness.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Retry
from redis.asyncio import Redis

from threadline.contract.codec import dumps, loads
from threadline.contract.keys import Keys
from threadline.contract.queues import DEFAULT_QUEUE
from threadline.errors import BackendUnavailable
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.cancellation import pass_on_cancellation
from threadline_worker.messages import GONE, Unreadable, is_wake_up
from threadline_worker.runs import Runs
from threadline_worker.tap import DeadLetter, Tap

__all__ = ["Consumer", "later"]

log = structlog.get_logger(__name__)

#: The safety net for a wake-up that was lost, or never sent by a producer that speaks arq alone.
_SLOW_POLL_SECONDS = 0.5
#: Workers that one message wakes, on average; all where there are no more.
_WOKEN = 16
_DIGITS = 10
#: What is kept of the body of a message that is set aside.
_KEPT_BYTES = 65_536

#: Takes a message's arguments: (message id, job id, the whole job or None).
Handler = Callable[[str, str, Any], Awaitable[None]]


def later(seconds: float) -> Retry:
    """What a handler raises to leave the message in the queue for a while."""
    return Retry(defer=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads workers


class Consumer:
    """`run()` until it is cancelled. `may_claim` closes all taps (draining, servers away, clock off).

    `fleet` is about how many workers there are.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        runs: Runs,
        *,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        handler: Handler,
        dead_letter: DeadLetter,
        may_claim: Callable[[], bool],
        on_control: Callable[[dict[str, Any]], None],
        on_purged: Callable[[str], None],
        fleet: Callable[[], int] = lambda: 1,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._runs = runs
        self._handler = handler
        self._dead_letter = dead_letter
        self._may_claim = may_claim
        self._on_control = on_control
        self._on_purged = on_purged
        self._fleet = fleet
        self._turns = 0
        self._short = False
        redis.job_serializer = dumps
        redis.job_deserializer = loads
        redis.default_queue_name = keys.queue
        self._taps = [self._tap(queue) for queue in queues]

    async def run(self) -> None:
        """Take messages until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen_for_ever(), name="listen")
            tasks.create_task(self._poll_for_ever(), name="poll")

    async def _poll_for_ever(self) -> None:
        try:
            while True:
                pass_on_cancellation()
                self._runs.freed.clear()
                await self._share()
                rests = [tap.rest for tap in self._taps if tap.rest]
                try:
                    async with asyncio.timeout(min([_SLOW_POLL_SECONDS, *rests])):
                        await self._runs.freed.wait()
                except TimeoutError:
                    pass
        finally:
            for tap in self._taps:
                await tap.close()

    async def _share(self) -> None:
        """Give the free slots to the queues: equal parts, what one does not need is the others'.

        Who was served longest ago comes first, so that with one slot the queues take turns.
        """
        hungry = sorted(self._taps, key=lambda tap: tap.served)
        if self._free() <= 0:
            for tap in hungry:
                await tap.take(0)
        while hungry and (free := self._free()) > 0:
            part = max(1, free // len(hungry))
            for tap in tuple(hungry):
                if (most := min(part, self._free())) <= 0:
                    break
                if taken := await tap.take(most):
                    self._turns += 1
                    tap.served = self._turns
                if taken < most:
                    hungry.remove(tap)
            hungry.sort(key=lambda tap: tap.served)
        self._short = bool(hungry)

    def _free(self) -> int:
        """Slots that nobody has, nor will have once the messages under way have become claims."""
        if not self._may_claim():
            return 0
        arriving = sum(tap.arriving for tap in self._taps) - self._runs.reserving
        return self._runs.free - max(arriving, 0)

    def _handled(self) -> None:
        """A message has come to its end; it may have kept a slot from another one."""
        if self._short:
            self._runs.freed.set()

    def _tap(self, queue: str) -> Tap:
        return Tap(
            self._redis,
            self._keys,
            queue,
            slots=self._runs.slots,
            handler=self._take,
            dead_letter=self._dead_letter,
            on_gone=self._gone,
            note_purged=self._note_purged,
            on_done=self._handled,
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
            wakes = [self._keys.wake_of(tap.queue) for tap in self._taps]
            await pubsub.subscribe(*wakes, self._keys.control)
            while True:
                pass_on_cancellation()
                message = await pubsub.get_message(ignore_subscribe_messages=False, timeout=30.0)
                if message is None:
                    await pubsub.ping()
                    continue
                if message["type"] == "message" and message["channel"] == self._keys.control.encode():
                    self._control(message["data"])
                # A wake-up, or a (re)subscription: something may have been missed.
                elif message["type"] != "message" or self._woken(message["data"]):
                    self._runs.freed.set()
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _woken(self, data: bytes) -> bool:
        """Whether this worker looks for what has come. Of a large fleet some do for each message, not all for one.

        Should nobody, the next slow poll is near: each of so many has one every half second.
        """
        # The payload is how many were put, or anything: other producers need not say.
        messages = (int(data) if data.isdigit() and len(data) < _DIGITS else 0) or self._fleet()
        return random.random() * self._fleet() <= _WOKEN * messages  # noqa: S311 - spreads workers

    def _control(self, data: bytes) -> None:
        try:
            command = loads(data)
        except ValueError:
            return
        if isinstance(command, dict):
            self._on_control(command)
