"""Publishes one run's events in order without ever making a super-step wait; what Redis lost is a marked gap.

An event is made JSON when it is offered, so that nothing that the graph does later can change it. Its position is given
when it is sent: where events were dropped before (unsent.py) one position is left out, which readers see as a gap.
A batch whose answer was lost is sent again with the same positions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec
import structlog

from threadline.contract.events import Event, now
from threadline.log.append import EventLog
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.cancellation import pass_on_cancellation
from threadline_worker.coalesce import Coalescer, Piece
from threadline_worker.origins import Origin
from threadline_worker.serialise import packed
from threadline_worker.shown import Shown, phase
from threadline_worker.telemetry.metrics import Metrics
from threadline_worker.unsent import Unsent, Waiting

__all__ = ["Publisher"]

log = structlog.get_logger(__name__)

_BATCH: Final = 256
_BATCH_BYTES: Final = 2**20
_FLUSH_SECONDS: Final = 5.0
#: Before the second try to reach Redis; doubled up to the last.
_FIRST_DELAY: Final = 0.05
_LAST_DELAY: Final = 2.0
#: A call that takes longer means that Redis is slow: tokens are merged instead of queued.
_SLOW_SECONDS: Final = 0.04
#: How long the run's stream gives way at once when a lot waits and Redis is quick.
_GIVE_WAY_SECONDS: Final = 0.05


class _CameWith(NamedTuple):
    """What a message's part came with."""

    ns: tuple[str, ...]
    origin: Origin
    at: str


class Publisher:
    """The events of one epoch behind its transition's (n = 1), from `async with` to its end.

    `may_publish` is asked before each call (P3): false holds events back. `on_stale` is called once if Redis knows a
    higher epoch. `look_back` reads what earlier epochs have shown; without it nothing is marked as `rerun`.
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
        look_back: Callable[[], Awaitable[Shown]] | None = None,
    ) -> None:
        self._log = log_
        self._job_id = job_id
        self._thread_id = thread_id
        self._epoch = epoch
        self._metrics = metrics
        self._may_publish = may_publish
        self._on_stale = on_stale
        self._look_back = look_back
        self._shown: Shown | None = None
        self._tokens = Coalescer()
        self._unsent = Unsent()
        self._n = 1
        self._sending: list[tuple[int, bytes, str]] = []
        self._queued = b""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tried = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._call_began: float | None = None
        self._redis_slow = False
        self._told_of_drops = False
        self._refused = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"publish {self._job_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            (failure,) = await asyncio.gather(self._task, return_exceptions=True)
            if isinstance(failure, Exception):  # a bug: what was not sent is a gap, and the job goes on all the same
                log.error("publish.ended", job_id=self._job_id, exc_info=failure)

    def first(self, encoded: bytes, kind: str, queued: bytes) -> None:
        """Put the transition's own event (n = 1) in front, when it could not be appended at once.

        `queued` is the event 0-1, for a log that is empty: whoever appends first adds it (P1).
        """
        self._sending.insert(0, (1, encoded, kind))
        self._queued = queued
        self._rouse()

    def offer(self, kind: str, ns: tuple[str, ...], data: Any, origin: Origin = Origin()) -> None:  # noqa: B008 - a constant
        """Take an event; returns at once. What becomes of `data` afterwards does not matter.

        Pieces of messages may wait for 40 ms to be joined; any other event goes behind all pieces that came before it.
        """
        if self._refused:
            return
        came_with = _CameWith(ns, origin, now())
        pieces = None
        if kind == "messages":
            pieces = self._tokens.add(ns, data, came_with, now=time.monotonic(), slow=self.slow)
        if pieces is None:
            self._queue_pieces(self._tokens.close())
            self._queue(Waiting(kind, ns, packed(data), origin=origin, at=came_with.at, what=phase(kind, data)))
        else:
            self._queue_pieces(pieces)
        if len(self._unsent):
            self._rouse()
        elif len(self._tokens):
            self._idle.clear()
            self._set_timer()

    async def room(self) -> None:
        """Give the sender its turn when a lot waits at once: at most 50 ms, and never for a Redis that is slow."""
        if not self._unsent.pressing or self.slow:
            return
        self._tried.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_WAY_SECONDS):
                await self._tried.wait()

    @property
    def slow(self) -> bool:
        """Whether Redis takes long, or answers nothing at all."""
        began = self._call_began
        return self._redis_slow or (began is not None and time.monotonic() - began > _SLOW_SECONDS)

    @property
    def top(self) -> str:
        """The position of the last event that was offered, whether it has arrived or not."""
        return f"{self._epoch}-{self._n + self._unsent.positions + len(self._tokens)}"

    async def flush(self, limit: float = _FLUSH_SECONDS) -> bool:
        """Wait until everything is in the log, at most `limit` seconds. False: it is not."""
        self._queue_pieces(self._tokens.close())
        self._rouse()
        try:
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _queue_pieces(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            came: _CameWith = piece.came_with
            data = packed([piece.message, piece.metadata])
            self._queue(Waiting("messages", came.ns, data, origin=came.origin, at=came.at))

    def _queue(self, waiting: Waiting) -> None:
        lost = self._unsent.dropped.total() + self._unsent.cut
        self._unsent.put(waiting)
        if self._unsent.dropped.total() + self._unsent.cut > lost and not self._told_of_drops:
            log.warning("publish.dropped", job_id=self._job_id)
            self._told_of_drops = True

    def _rouse(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _set_timer(self) -> None:
        due = self._tokens.next_due()
        if due is not None and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(due - time.monotonic(), 0.0), self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._rouse()

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            pass_on_cancellation()
            await self._wake.wait()
            self._wake.clear()
            while self._something():
                pass_on_cancellation()
                sent = self._refused or await self._send()
                self._tried.set()
                if self._refused:
                    self._forget()
                elif sent:
                    delay = _FIRST_DELAY
                else:
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _LAST_DELAY)
            if len(self._tokens):
                self._set_timer()
            else:
                self._idle.set()

    def _something(self) -> bool:
        """Whether there is something to send, with the pieces that have waited for long enough.

        While a batch cannot be sent pieces stay where they are, and grow.
        """
        if not self._sending:
            self._queue_pieces(self._tokens.due(time.monotonic()))
        return bool(self._sending or len(self._unsent))

    def _forget(self) -> None:
        self._sending.clear()
        self._unsent.clear()
        self._tokens.close()

    async def _send(self) -> bool:
        """One batch. False: not now."""
        if not self._may_publish():
            self._redis_slow = True
            return False
        began = self._call_began = time.monotonic()
        try:
            # A batch that did not arrive goes again as it is: what waits is bounded in `Unsent` alone. And the
            # transition goes alone: only behind it is the log fixed (shown.py).
            if not self._sending:
                await self._look()
                self._fill()
            events = [(n, encoded) for n, encoded, _ in self._sending]
            answer = await self._log.append(self._job_id, self._thread_id, self._epoch, events, queued=self._queued)
        except REDIS_ERRORS as error:
            log.warning("publish.failed", job_id=self._job_id, error=reason(error))
            self._redis_slow = True
            return False
        finally:
            self._call_began = None
        seconds = time.monotonic() - began
        self._redis_slow = seconds > _SLOW_SECONDS
        self._metrics.publish_seconds.observe(seconds)
        if answer.stale:
            log.warning("publish.stale", job_id=self._job_id, epoch=self._epoch, log_at=str(answer.before))
            self._refused = True
            self._on_stale()
            return True
        for _n, _encoded, kind in self._sending:
            self._metrics.events_published.labels(type=kind).inc()
        self._sending.clear()
        self._queued = b""
        return True

    async def _look(self) -> None:
        if self._shown is None and self._look_back is not None:
            self._shown = await self._look_back()

    def _fill(self) -> None:
        for waiting in self._unsent.take(_BATCH, _BATCH_BYTES):
            # One position is left out where events were dropped: readers see the hole and say where it is.
            self._n += 1 + waiting.gap
            self._sending.append((self._n, self._encode(waiting), waiting.kind))

    def _encode(self, waiting: Waiting) -> bytes:
        origin = waiting.origin
        rerun = self._shown is not None and self._shown.has(waiting.kind, waiting.ns, origin, waiting.what)
        return self._log.encode(
            Event(
                id=f"{self._epoch}-{self._n}",
                job_id=self._job_id,
                thread_id=self._thread_id,
                type=waiting.kind,
                ns=list(waiting.ns),
                data=msgspec.Raw(waiting.data),
                at=waiting.at,
                step=origin.step,
                agent=origin.agent,
                node=origin.node,
                task=origin.task,
                rerun=rerun,
            )
        )
