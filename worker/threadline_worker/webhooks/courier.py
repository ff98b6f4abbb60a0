"""Takes due reports out of the outbox and delivers them beside the runs: few at once, and few to any one host."""

from __future__ import annotations

import asyncio
import random
import time

import psycopg
import structlog

from threadline.errors import BackendUnavailable, CannotDecrypt
from threadline.redis_client import reason
from threadline_worker.telemetry.job_fields import job_fields
from threadline_worker.telemetry.metrics import Metrics
from threadline_worker.webhooks.delivery import Delivery, signed_headers
from threadline_worker.webhooks.outbox import LEASE_SECONDS, Outbox
from threadline_worker.webhooks.schedule import next_pause
from threadline_worker.webhooks.sender import Answered, Refused, Sender, Sent, Unanswered

__all__ = ["SLOTS", "Courier"]

log = structlog.get_logger(__name__)

#: Deliveries at once in one worker.
SLOTS = 16
#: Seconds between two looks when nobody says that there is something: retries, and what a dead worker left.
_POLL_SECONDS = 5.0
#: Ends may come by the hundred: a look serves all that came meanwhile.
_LEAST_PAUSE = 0.02
#: What is in flight when the worker ends may come to its end so long.
_LAST_WORDS_SECONDS = 3.0
_NOTE_PAUSE = 1.0
_GONE = 410
_ERRORS = (psycopg.Error, BackendUnavailable, TimeoutError, OSError)


class Courier:
    """`run()` until it is cancelled; `soon` set says that a job has ended. Without secrets it only holds."""

    def __init__(self, outbox: Outbox, sender: Sender, secrets: tuple[str, ...], metrics: Metrics) -> None:
        self._outbox = outbox
        self._sender = sender
        self._secrets = secrets
        self._metrics = metrics
        self._flying: dict[asyncio.Task[None], str] = {}
        self._crowded = False
        self.soon = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; what is in flight then is given back if it does not end at once."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    await self._look(group)
                    await self._pause()
            except asyncio.CancelledError:
                if self._flying:
                    await asyncio.wait(self._flying, timeout=_LAST_WORDS_SECONDS)
                raise

    async def busy(self) -> bool:
        """Whether something is in flight or due that this worker may send. Raises BackendUnavailable."""
        return bool(self._secrets) and (bool(self._flying) or await self._outbox.due())

    async def _look(self, group: asyncio.TaskGroup) -> None:
        try:
            if self._secrets:
                await self._take(group)
            elif held := await self._outbox.hold():
                log.warning("webhook.held", deliveries=held, advice="set THREADLINE_WEBHOOK_SECRETS at the workers")
        except _ERRORS as error:
            log.warning("webhook.outbox_failed", error=reason(error))

    async def _take(self, group: asyncio.TaskGroup) -> None:
        """Claim as long as there are free slots and due reports to hosts that are not full."""
        while free := SLOTS - len(self._flying):
            claimed = await self._outbox.claim(free, list(self._flying.values()))
            for delivery in claimed:
                task = group.create_task(self._deliver(delivery), name=f"webhook {delivery.message_id}")
                self._flying[task] = delivery.host
                task.add_done_callback(self._landed)
            if not claimed:
                break
        self._crowded = not free or bool(self._outbox.full(list(self._flying.values())))

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        if self._crowded:  # somebody may have waited for this slot
            self.soon.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_POLL_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311 - spreads workers
                await self.soon.wait()
            await asyncio.sleep(_LEAST_PAUSE)
        except TimeoutError:
            pass
        self.soon.clear()

    async def _deliver(self, delivery: Delivery) -> None:
        started = time.monotonic()
        # The task is the delivery's own, and so is its context.
        structlog.contextvars.bind_contextvars(**job_fields(delivery._asdict()))
        try:
            opened = delivery._replace(payload=self._outbox.payload(delivery))
            sent = await self._sender.post(opened.url, opened.payload.encode(), signed_headers(opened, self._secrets))
        except CannotDecrypt as error:  # a worker with the key may come
            sent = Unanswered(str(error))
        except asyncio.CancelledError:
            await self._give_back(delivery)
            raise
        except Exception:  # the boundary of a delivery: whatever a receiver makes of us, the other reports go on
            log.exception("webhook.attempt_failed", host=delivery.host)
            sent = Unanswered("the worker could not handle what came back; see its log")
        await self._note(delivery, sent, until=started + LEASE_SECONDS)

    async def _give_back(self, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._outbox.give_back(delivery)
        except _ERRORS as error:  # it is due again when the lease ends
            log.warning("webhook.outbox_failed", error=reason(error))

    async def _note(self, delivery: Delivery, sent: Sent, *, until: float) -> None:
        """Write the outcome for as long as the claim is ours; behind that somebody delivers once more."""
        state, delay, result = _judged(delivery, sent)
        status, answer = (sent.status, sent.text) if isinstance(sent, Answered) else (None, sent.reason)
        while time.monotonic() < until:
            try:
                noted = await self._outbox.record(delivery, state, delay=delay, status=status, answer=answer)
            except _ERRORS as error:
                log.warning("webhook.outbox_failed", error=reason(error))
                await asyncio.sleep(_NOTE_PAUSE)
                continue
            if noted:
                self._tell(delivery, result, status, answer, delay)
            return

    def _tell(self, delivery: Delivery, result: str, status: int | None, answer: str | None, delay: float) -> None:
        self._metrics.webhook_deliveries.labels(result=result).inc()
        # The host alone: path and query of a webhook's URL may be a secret.
        known: dict[str, object] = {"host": delivery.host, "status": status, "attempt": delivery.attempts + 1}
        match result:
            case "delivered":
                log.info("webhook.delivered", **known)
            case "retry":
                log.warning("webhook.attempt_failed", **known, answer=answer, next_try_seconds=round(delay, 1))
            case _:
                log.error("webhook.failed", **known, answer=answer, why=result)


def _judged(delivery: Delivery, sent: Sent) -> tuple[str, float, str]:
    """The row's next state, the pause before the next try, and the metric's word for it."""
    match sent:
        case Answered(status) if 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls success
            return "delivered", 0.0, "delivered"
        case Answered(status) if status == _GONE:
            return "failed", 0.0, "gone"
        case Refused():
            return "failed", 0.0, "refused"
        case _:
            asked = sent.retry_after if isinstance(sent, Answered) else None
            pause = next_pause(delivery.attempts + 1, asked)
            return ("failed", 0.0, "given_up") if pause is None else ("pending", pause, "retry")
