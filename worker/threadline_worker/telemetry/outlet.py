"""Log lines leave through a handler that never waits: a reader that has stopped reading stops no event loop.

A pipe that is full (64 KiB on Linux) would hold whoever logs next, and the whole worker with it. So a line is written
at once where the system says that there is room; otherwise it waits, in memory, for a thread that may be held. What
does not fit there is counted and said once there is room again.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from queue import SimpleQueue
from typing import Any, Final, TextIO

import structlog

from threadline_worker.telemetry.line_budget import LineBudget, LineGate, spent_by_this_job

__all__ = ["Outlet"]

log = structlog.get_logger(__name__)

#: A pipe with room has room for so much, and takes it in one piece.
_PIECE: Final = 4096
#: What waits for a reader at most.
_MOST_BYTES: Final = 4 * 1024 * 1024
#: How long the end of the process waits for a reader.
_LAST_SECONDS: Final = 1.0


class Outlet(logging.Handler):
    """Writes to `stream`: by its file descriptor if it has one, so that it need not wait."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        descriptor = _descriptor(stream)
        self._pipe = None if descriptor is None else _Pipe(descriptor)
        self._conditions = LineGate()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, have it wait, or leave it out; called with the handler's lock."""
        try:
            budget = spent_by_this_job(record, self._conditions)
            if budget is False:
                return
            line = self.format(record)
            if isinstance(budget, LineBudget):
                budget.spent(len(line))
            self._put(line)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - a line that cannot be made must not stop the code that logs
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Says whose line it was and nothing of it: logging's own words would show its arguments."""
        kind = getattr(sys.exc_info()[0], "__name__", "")
        if record.name != __name__:  # else this very line cannot be made
            log.warning("log.unreadable", of=record.name, at=f"{record.pathname}:{record.lineno}", error=kind)

    def flush(self) -> None:
        """Wait a second at most until a reader has taken what waits."""
        if self._pipe is not None:
            self._pipe.drained(_LAST_SECONDS)

    def _put(self, line: str) -> None:
        if self._pipe is None:
            self._stream.write(line + "\n")
            self._stream.flush()
        elif self._pipe.put((line + "\n").encode("utf-8", "backslashreplace")) and self._pipe.dropped:
            dropped, self._pipe.dropped = self._pipe.dropped, 0
            log.warning("log.dropped", lines=dropped)


class _Pipe:
    """A file descriptor that may be slow. `dropped`: lines that did not fit into memory.

    Without a lock: a garbage collection in the middle of `put` may log as well, in the same thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Also in a process that a tool has forked: the writing thread is not there, nor what it was to write."""
        self._room = _room_of(self._descriptor)
        self._waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        #: Bytes that were put there, and those that the thread is done with; each has one writer.
        self._given = self._taken = 0
        self._writing = False
        self.dropped = 0

    @property
    def idle(self) -> bool:
        """Nothing waits."""
        return self._given == self._taken

    def put(self, data: bytes) -> bool:
        """Whether it was written, or waits; never waits itself. One caller at a time."""
        if self.idle and not (data := self._written(data)):
            return True
        if self._given - self._taken + len(data) > _MOST_BYTES:
            self.dropped += 1
            return False
        self._given += len(data)
        self._waiting.put(data)
        self._begin_writing()
        return True

    def drained(self, limit: float) -> None:
        """Return once all that waits now is written, after `limit` seconds at most."""
        if not self.idle:
            over = threading.Event()
            self._waiting.put(over)
            over.wait(limit)

    def _begin_writing(self) -> None:
        if self._writing:
            return
        self._writing = True
        try:
            threading.Thread(target=self._write_what_waits, name="threadline-log", daemon=True).start()
        except RuntimeError:  # no thread to be had now: the next line tries again
            self._writing = False

    def _written(self, data: bytes) -> bytes:
        """Write while there is room; the rest."""
        try:
            while data and self._room.poll(0):
                data = data[os.write(self._descriptor, data[:_PIECE]) :]
        except BlockingIOError:  # somebody who has the pipe, too, was quicker
            return data
        except OSError:  # the reader has gone: nobody is left to be told
            return b""
        return data

    def _write_what_waits(self) -> None:
        """In a thread of its own, which a reader may hold."""
        waiting, room = self._waiting, _room_of(self._descriptor)
        while True:
            match waiting.get():
                case bytes() as data:
                    self._write(data, room)
                    self._taken += len(data)
                case over:
                    over.set()

    def _write(self, data: bytes, room: select.poll) -> None:
        while data:
            room.poll()  # whoever has the pipe, too, may have made it one that does not block
            try:
                data = data[os.write(self._descriptor, data[:_PIECE]) :]
            except BlockingIOError:
                continue
            except OSError:  # as in _written
                return


def _room_of(descriptor: int) -> select.poll:
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return room


def _descriptor(stream: Any) -> int | None:
    try:
        descriptor = int(stream.fileno())
        os.fstat(descriptor)
    except (OSError, ValueError, AttributeError, TypeError):  # a test's or an embedder's own stream
        return None
    return descriptor
