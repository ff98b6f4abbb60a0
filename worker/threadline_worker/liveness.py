"""Renews a worker's life; never extends one it has lost.

A beat says "probably alive"; only the fence says whose writes count. The beat has a thread, an event loop and a
connection of its own, so that neither a blocked main loop nor a full pool stops it (V1). One statement a second,
whatever the number of jobs.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.ledger.database import connection_kwargs, refused
from threadline.ledger.migrate import lock_key
from threadline.ledger.sql import Queries
from threadline_worker.telemetry.last_words import end_process

__all__ = ["Beat", "Liveness", "Owned", "worker_lock_key"]

log = structlog.get_logger(__name__)

#: More than this between this machine's clock and the database's, and the worker does not claim (F4).
MAX_SKEW_SECONDS = 5.0
_LEAST_PAUSE = 0.1
#: The exit code of a worker whose loop stood still (EX_SOFTWARE); a supervisor starts it again.
STALLED_EXIT = 70


def worker_lock_key(schema: str, worker_id: str) -> int:
    """The advisory lock that a worker's beat session holds for its life."""
    return lock_key(f"{schema}:worker:{worker_id}")


class Owned(NamedTuple):
    """A running job that the ledger gives this worker, and the cancel that somebody asked for."""

    job_id: str
    epoch: int
    cancel: str | None
    rollback: bool


class Beat(NamedTuple):
    """What one beat told: `asked` are the runs (job → epoch) that this worker had when it was sent."""

    alive: bool
    asked: dict[str, int]
    owned: list[Owned]


class Liveness:
    """`start()` in the main loop, `stop()` at the end. `on_beat` and `on_notice` are called in the main loop.

    `runs` is asked from the heartbeat's thread for job → epoch. `on_notice` says that something in the ledger changed.
    """

    def __init__(
        self,
        database_url: str,
        queries: Queries,
        worker_id: str,
        *,
        heartbeat: float,
        lease: float,
        loop_stall: float,
        channel: str,
        runs: Callable[[], dict[str, int]],
        on_beat: Callable[[Beat], None],
        on_notice: Callable[[], None],
    ) -> None:
        self.worker_id = worker_id
        self.application_name = f"threadline:{worker_id}"
        self.lock_key = worker_lock_key(channel, worker_id)
        self.draining = False
        self.skew = 0.0
        self.in_recovery = False
        #: Why the last beat failed; "" after one that did not.
        self.trouble = ""
        self._url = database_url
        self._queries = queries
        self._heartbeat = heartbeat
        self._lease = lease
        self._loop_stall = loop_stall
        self._channel = channel
        self._runs = runs
        self._on_beat = on_beat
        self._on_notice = on_notice
        self._stop = threading.Event()
        self._beat_soon: Callable[[], None] = lambda: None
        self._last_beat = float("-inf")
        self._last_tick = self._last_round = time.monotonic()
        self._clock_was_ok = True
        self._thread: threading.Thread | None = None
        self._main: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to beat; the worker is registered already."""
        self._main = asyncio.get_running_loop()
        self._last_tick = self._last_beat = time.monotonic()
        # In a copy of this context: what the beat logs, and what it calls in the main loop, carries the worker's id.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._in_thread,), name="threadline-beat", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; its session's lock is free then."""
        self._stop.set()
        self._beat_soon()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10.0)

    def fresh(self) -> bool:
        """Whether the last beat is younger than the lease (P3)."""
        return time.monotonic() - self._last_beat < self._lease

    def seconds_since_tick(self) -> float:
        """How long the main loop has not answered; measured once a heartbeat."""
        return time.monotonic() - self._last_tick

    def clock_ok(self) -> bool:
        """Whether this machine's clock is near enough to the database's to claim (F4)."""
        return abs(self.skew) <= MAX_SKEW_SECONDS

    def beat_now(self) -> None:
        """Do not wait for the next second: something was asked of a job here."""
        self._beat_soon()

    def beating(self) -> bool:
        """Whether the heartbeat's thread still does its rounds, whatever Postgres answers."""
        return time.monotonic() - self._last_round < self._lease + self._heartbeat

    # In the heartbeat's thread:

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._beat_for_life())
        except BaseException as error:  # noqa: BLE001 - the boundary of a thread
            # Out of memory, or a bug: without a beat this process is nobody's worker any more.
            why = error
            end_process(STALLED_EXIT, lambda: log.exception("worker.stalled", exc_info=why))

    async def _beat_for_life(self) -> None:
        loop, soon = asyncio.get_running_loop(), asyncio.Event()
        self._beat_soon = lambda: _call(loop, soon.set)
        while not self._stop.is_set():
            try:
                # psycopg's cancellation may itself wait on a dead network: the limit abandons the task if need be.
                await self._session(soon)
            except (psycopg.Error, TimeoutError, OSError) as error:
                said = refused(error) if isinstance(error, psycopg.Error) else error
                self.trouble = " ".join(str(said).split()) or type(error).__name__
                log.warning("beat.failed", error=self.trouble)
                self._watch_loop()
                await asyncio.sleep(min(self._heartbeat, 0.5))

    async def _session(self, soon: asyncio.Event) -> None:
        """One connection's life: lock, listen, beat."""
        limit = max(self._lease / 2, 1.0)
        kwargs = connection_kwargs(self.application_name)
        connection = await _within(limit, AsyncConnection.connect(self._url, **kwargs))
        try:
            await _within(limit, connection.execute(self._queries.fill("LISTEN {schema}")))
            locked = False
            while not self._stop.is_set():
                if not locked:  # a session of ours that has died may hold it for a moment still
                    await _within(limit, connection.execute("SELECT pg_try_advisory_lock(%s)", (self.lock_key,)))
                locked = await self._beat(connection, limit)
                await self._until_next(connection, soon)
        finally:
            with suppress(psycopg.Error, TimeoutError, OSError):
                connection.pgconn.finish()

    async def _beat(self, connection: AsyncConnection[DictRow], limit: float) -> bool:
        """One beat; whether the ledger saw our lock held."""
        asked = self._runs()
        params = {"worker_id": self.worker_id, "draining": self.draining}
        before, sent = time.time(), time.monotonic()
        cursor = await _within(limit, connection.execute(self._queries["beat"], params))
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        self._note_clock(row["database_time"] - (before + time.time()) / 2)
        self.in_recovery = row["in_recovery"]
        if row["alive"]:
            # When it was sent, not when the answer was read: a process may be stopped in between.
            self._last_beat = sent
            self.trouble = ""
        beat = Beat(
            row["alive"],
            asked,
            [Owned(job, epoch, code, bool(rollback)) for job, epoch, code, rollback in row["owned"]],
        )
        self._in_main(lambda: self._on_beat(beat))
        self._watch_loop()
        return bool(row["lock_ok"])

    async def _until_next(self, connection: AsyncConnection[DictRow], soon: asyncio.Event) -> None:
        """Sleep a heartbeat; a notice from the ledger ends the sleep early, so that cancels are quick."""
        soon.clear()
        if self._stop.is_set():
            return
        await asyncio.sleep(_LEAST_PAUSE)  # notices may come by the hundred
        notices = asyncio.create_task(_notices(connection, self._heartbeat))
        called = asyncio.create_task(soon.wait())
        await asyncio.wait({notices, called}, return_when=asyncio.FIRST_COMPLETED)
        for task in (notices, called):
            if not task.done():
                task.cancel()
        results = await asyncio.gather(notices, called, return_exceptions=True)
        if isinstance(results[0], psycopg.Error):
            raise results[0]
        if results[0] is True:
            self._in_main(self._on_notice)

    def _note_clock(self, skew: float) -> None:
        """F4: said once each time that it goes wrong."""
        self.skew = skew
        if self._clock_was_ok and not self.clock_ok():
            log.warning("clock.skew", seconds=round(skew, 1), most=MAX_SKEW_SECONDS)
        self._clock_was_ok = self.clock_ok()

    def _watch_loop(self) -> None:
        """V4: a worker that beats but whose loop is wedged for good must not be immortal."""
        now = time.monotonic()
        if now - self._last_round > 2 * self._lease:
            self._last_tick = (
                now  # this thread stood still as well: the process was stopped, and its loop is not to blame
            )
        self._last_round = now
        self._in_main(self._tick)
        if self.seconds_since_tick() > self._loop_stall:
            seconds = round(self.seconds_since_tick(), 1)
            end_process(STALLED_EXIT, lambda: log.error("worker.stalled", seconds=seconds))

    def _in_main(self, call: Callable[[], None]) -> None:
        if self._main is not None:
            _call(self._main, call)

    def _tick(self) -> None:
        self._last_tick = time.monotonic()


async def _notices(connection: AsyncConnection[DictRow], seconds: float) -> bool:
    """Whether a notice came within so many seconds."""
    async for _notice in connection.notifies(timeout=seconds, stop_after=1):
        return True
    return False


async def _within(limit: float, call: Any) -> Any:
    """Await with a limit that holds even if the call does not let itself be cancelled."""
    task = asyncio.ensure_future(call)
    done, _pending = await asyncio.wait({task}, timeout=limit)
    if not done:
        task.cancel()
        raise TimeoutError(f"Postgres did not answer within {limit:g} s")
    return task.result()


def _call(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    with suppress(RuntimeError):  # the loop is closed: the process is on its way out
        loop.call_soon_threadsafe(call)
