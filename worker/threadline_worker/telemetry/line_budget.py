"""A job that logs in a loop, or a server that is away for an hour, writes a bounded number of lines.

What agents, tools and libraries log counts against their job's budget, one for each epoch; our own lines always pass,
but for those that tell of a condition that lasts: of these some pass, and then one a minute, with the number of those
that did not (`repeated`).
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import structlog

from threadline_worker.telemetry.log_events import REPEATING

__all__ = ["LineBudget", "LineGate", "spent_by_this_job"]

log = structlog.get_logger(__name__)

#: So many characters go with each line of a budget: 1,000 lines are about 1 MB.
_CHARACTERS_A_LINE: Final = 1024
#: Lines of one condition that pass at once; one more for each `_PAUSE_SECONDS`.
_AT_ONCE: Final = 20
_PAUSE_SECONDS: Final = 60.0
#: Conditions that are told apart; those not heard of for longest are forgotten first.
_CONDITIONS: Final = 500

_this_job: ContextVar[LineBudget | None] = ContextVar("threadline_line_budget", default=None)


class LineGate:
    """What may be written of one condition: `admits(key)` is how many were left out before this one, or None."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Key → lines that may pass, since when that is so, lines left out since the last one that passed.
        self._left: OrderedDict[Hashable, tuple[float, float, int]] = OrderedDict()
        self.left_out = 0

    def admits(self, key: Hashable) -> int | None:
        """0 or more: write it, so many were left out since the last one. None: leave it out."""
        now = self._clock()
        left, since, left_out = self._left.pop(key, (float(_AT_ONCE), now, 0))
        left = min(left + (now - since) / _PAUSE_SECONDS, _AT_ONCE)
        passes = left >= 1
        self._left[key] = (left - 1, now, 0) if passes else (left, now, left_out + 1)
        if len(self._left) > _CONDITIONS:
            self._left.popitem(last=False)
        self.left_out += not passes
        return left_out if passes else None


class LineBudget:
    """One job's lines in one epoch: `lines` of others, and as many KiB of them; 0 leaves out all of them."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._characters = lines * _CHARACTERS_A_LINE
        self.left_out = 0
        self.conditions = LineGate()

    def admits(self) -> bool:
        """Whether one more line of the agent, its tools or a library may be written."""
        if self._lines <= 0 or self._characters <= 0:
            self.left_out += 1
            return False
        self._lines -= 1
        return True

    def spent(self, characters: int) -> None:
        """A line of that length was written."""
        self._characters -= characters

    @contextmanager
    def of_this_job(self) -> Iterator[None]:
        """Everything that is logged inside, in tools' tasks and threads too, counts; the end says what was left out."""
        before = _this_job.set(self)
        try:
            yield
        finally:
            _this_job.reset(before)
            if self.left_out or self.conditions.left_out:
                log.warning("log.suppressed", lines=self.left_out, repeated_lines=self.conditions.left_out)


def spent_by_this_job(record: logging.LogRecord, conditions: LineGate) -> LineBudget | bool | None:
    """Whose budget a line is on: None is nobody's; False: it is left out. `conditions` are those of the process."""
    budget = _this_job.get()
    ours = record.name.startswith("threadline_worker")
    if budget is not None and not ours:
        return budget if budget.admits() else False
    if (key := _condition(record, ours=ours)) is not None:
        left_out = (conditions if budget is None else budget.conditions).admits(key)
        if left_out is None:
            return False
        record.repeated = left_out
    return None


def _condition(record: logging.LogRecord, *, ours: bool) -> Hashable | None:
    """What the line has in common with those that tell the same again; None: nothing."""
    if not ours:
        return record.name, str(record.msg)[:200]
    fields = record.msg if isinstance(record.msg, dict) else {}
    name = fields.get("event")
    # What ends a job with an exception is not what was tried again before it.
    return (name, record.levelno, fields.get("step"), "exc_info" in fields) if name in REPEATING else None
