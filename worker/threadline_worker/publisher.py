"""Publishes one run's events in order without ever making a super-step wait; what Redis lost is a marked gap.

Positions are given when an event is sent: an event that is dropped before (tokens only, when Redis is too slow) leaves
a hole on purpose, which readers see as a gap. A batch whose answer was lost is sent again with the same positions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog

from threadline.contract.events import Event, encode_event, now
from threadline.log.append import EventLog
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.cancellation import pass_on_cancellation
from threadline_worker.serialise import jsonable
from threadline_worker.telemetry.metrics import Metrics

__all__ = ["Publisher"]

log = structlog.get_logger(__name__)

_BATCH: Final = 64
#: Token events that may wait for Redis per job; above it the oldest are dropped (contract.md). Others always wait.
_MAX_WAITING_TOKENS: Final = 2_000
_FLUSH_SECONDS: Final = 5.0


class _Waiting(NamedTuple):
    type: str
    ns: tuple[str, ...]
    data: Any
    step: int | None
    at: str


class Publisher:
    """The events of one epoch behind its transition's (n = 1), from `async with` to its end.

    `may_publish` is asked before each call (P3): false holds events back. `on_stale` is called once if Redis knows a
    higher epoch.
    """

    def __init__(
        self,
        log_: EventLog,
        job_id: str,
        thread_id: str,
        epoch: int,
        *,
        metrics: Metrics,
        may_publish: Callable[[], bool],
        on_stale: Callable[[], None],
    ) -> None:
        self._log = log_
        self._job_id = job_id
        self._thread_id = thread_id
        self._epoch = epoch
        self._metrics = metrics
        self._may_publish = may_publish
        self._on_stale = on_stale
        self._waiting: deque[_Waiting] = deque()
        self._tokens = 0
        self._n = 1
        self._sending: list[tuple[int, bytes, str]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused = False
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"publish {self._job_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def first(self, encoded: bytes, kind: str) -> None:
        """Put the transition's own event (n = 1) in front, when it could not be appended at once."""
        self._sending.insert(0, (1, encoded, kind))
        self._rouse()

    def offer(self, kind: str, ns: tuple[str, ...], data: Any, step: int | None) -> None:
        """Take an event; returns at once. `data` must not be changed afterwards."""
        if self._refused:
            return
        if kind == "messages":
            self._tokens += 1
            if self._tokens > _MAX_WAITING_TOKENS:
                self._drop_oldest_token()
        self._waiting.append(_Waiting(kind, ns, data, step, now()))
        self._rouse()

    @property
    def top(self) -> str:
        """The position of the last event that was offered, whether it has arrived or not."""
        return f"{self._epoch}-{self._n + bool(self._dropped) + len(self._waiting)}"

    async def flush(self, limit: float = _FLUSH_SECONDS) -> bool:
        """Wait until everything is in the log, at most `limit` seconds. False: it is not."""
        try:
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _rouse(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _drop_oldest_token(self) -> None:
        for index, waiting in enumerate(self._waiting):
            if waiting.type == "messages":
                del self._waiting[index]
                self._tokens -= 1
                if self._dropped == 0:
                    log.warning("publish.dropped", job_id=self._job_id)
                self._dropped += 1
                return

    async def _run(self) -> None:
        delay = 0.05
        while True:
            pass_on_cancellation()
            await self._wake.wait()
            self._wake.clear()
            while self._sending or self._waiting:
                pass_on_cancellation()
                if self._refused:
                    self._sending.clear()
                    self._waiting.clear()
                elif await self._send():
                    delay = 0.05
                else:
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 2.0)
            self._idle.set()

    async def _send(self) -> bool:
        """One batch. False: not now."""
        if not self._may_publish():
            return False
        self._fill()
        started = time.perf_counter()
        try:
            answer = await self._log.append(
                self._job_id, self._thread_id, self._epoch, [(n, encoded) for n, encoded, _ in self._sending]
            )
        except REDIS_ERRORS as error:
            log.warning("publish.failed", job_id=self._job_id, error=reason(error))
            return False
        self._metrics.publish_seconds.observe(time.perf_counter() - started)
        if answer.stale:
            log.warning("publish.stale", job_id=self._job_id, epoch=self._epoch, log_at=str(answer.before))
            self._refused = True
            self._on_stale()
            return True
        for _n, _encoded, kind in self._sending:
            self._metrics.events_published.labels(type=kind).inc()
        self._sending.clear()
        return True

    def _fill(self) -> None:
        if self._dropped:
            # One position is left out: readers see the hole and say where it is.
            self._n += 1
            self._dropped = 0
        while self._waiting and len(self._sending) < _BATCH:
            waiting = self._waiting.popleft()
            if waiting.type == "messages":
                self._tokens -= 1
            self._n += 1
            self._sending.append((self._n, self._encode(waiting), waiting.type))

    def _encode(self, waiting: _Waiting) -> bytes:
        return encode_event(
            Event(
                id=f"{self._epoch}-{self._n}",
                job_id=self._job_id,
                thread_id=self._thread_id,
                type=waiting.type,
                ns=list(waiting.ns),
                data=jsonable(waiting.data),
                step=waiting.step,
                at=waiting.at,
            )
        )
