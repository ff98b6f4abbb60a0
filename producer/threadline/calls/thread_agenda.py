"""A thread's agenda from the ledger: no job is missed, and one position (`JOB/ID`) says what was told."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec

from threadline.contract.events import Event, EventId
from threadline.contract.states import ENDED
from threadline.errors import BackendUnavailable, JobNotFound, ThreadOwnedByAnother
from threadline.ledger.database import Row
from threadline.ledger.ledger import Ledger
from threadline.ledger.transition_event import event_of
from threadline.log.feed import Heard
from threadline.log.reader import Ending
from threadline.log.thread import Turn

__all__ = ["LedgerAgenda", "ending_of"]

#: A look takes transitions that are so much older than the newest one seen, too: a transaction that replaces jobs
#: may have been open for long when it commits.
_OVERLAP: Final = timedelta(hours=1)


class LedgerAgenda:
    """See threadline.log.thread.Agenda. It tells the stretches of jobs in the ledger's order.

    One job of a thread runs at a time, and a job that goes on after its end does so in another stretch: so all of a
    stretch's events stand before all of the next one's, and what is told never has to be told again.
    """

    def __init__(self, ledger: Ledger, thread_id: str, user_id: str | None) -> None:
        self._ledger = ledger
        self._thread_id = thread_id
        self._user_id = user_id
        #: Rows of queries/thread_stretches.sql by `n`, in order.
        self._stretches: dict[int, Row] = {}
        self._told: dict[str, EventId] = {}
        #: Stretches (job and last epoch) that have another one behind them, told as far as the log had them.
        self._over: set[tuple[str, int]] = set()
        #: Jobs whose log had nothing new although the ledger has: until something is heard, they are not asked again.
        self._in_vain: dict[str, int] = {}
        self._newest: datetime | None = None

    async def begin(self, after: Turn | None) -> None:
        """The first look. Raises ThreadOwnedByAnother, JobNotFound (the job of `after`), BackendUnavailable."""
        params = {"thread_id": self._thread_id}
        owner = await self._ledger.database.row(self._ledger.queries["thread_owner"], params)
        self._check_owner(owner)
        await self._look()
        if after is None or after.after is None:
            return
        status = (await self._ledger.snapshot(after.job_id)).status
        if status.thread_id != self._thread_id:
            raise JobNotFound(f"job {after.job_id} is not one of thread {self._thread_id}: give one of its events")
        for row in self._before(after.job_id, after.after.epoch):
            # A stretch's last event is that of the transition that ended it.
            self._told[row["job_id"]] = EventId(row["epoch"] if row["last"] is None else row["last"], 1)
        self._told[after.job_id] = after.after

    async def next(self) -> Turn | None:
        """The first stretch that goes on or is not told to its end."""
        with suppress(BackendUnavailable):  # Postgres is away: what is known goes on, a later look will tell the rest
            await self._look()
        for row in self._stretches.values():
            job_id, last = row["job_id"], row["last"]
            told = self._told.get(job_id)
            over = last is not None and ((told is not None and told.epoch >= last) or (job_id, last) in self._over)
            if not over and self._in_vain.get(job_id) != row["epoch"]:
                return Turn(job_id, told, last if last is not None and last < row["epoch"] else None)
        return None

    def hear(self, heard: Event | Heard) -> None:
        """Whatever it was: the ledger is asked again."""
        del heard
        self._in_vain.clear()

    def told(self, turn: Turn, last: EventId | None, *, was_live: bool) -> None:
        """Remember the position; a log that is behind the ledger has to be waited for."""
        del was_live
        if last is not None:
            self._told[turn.job_id] = last
        if turn.upto is not None:
            self._over.add((turn.job_id, turn.upto))
        elif last == turn.after:
            self._in_vain[turn.job_id] = next(
                row["epoch"] for row in self._stretches.values() if row["job_id"] == turn.job_id
            )

    def reconnected(self) -> None:
        """The ledger is asked again anyway."""
        self._in_vain.clear()

    def gap(self) -> Event | None:
        """The ledger has every job."""
        return None

    def ending(self, job_id: str) -> Ending | None:
        """How the job ended."""
        return ending_of(self._ledger, job_id)

    def _before(self, job_id: str, epoch: int) -> list[Row]:
        """The stretches that stand before the one of a job that has this epoch; none if it has not begun."""
        rows = list(self._stretches.values())
        own = [index for index, row in enumerate(rows) if row["job_id"] == job_id and row["first"] <= epoch]
        return rows[: own[-1]] if own else []

    async def _look(self) -> None:
        params = {"thread_id": self._thread_id, "since": self._newest and self._newest - _OVERLAP}
        rows = await self._ledger.database.rows(self._ledger.queries["thread_stretches"], params)
        for row in rows:
            self._check_owner(row)
            self._newest = max(row["transition_at"], self._newest or row["transition_at"])
        if any(self._stretches.get(row["n"]) != row for row in rows):
            self._stretches = dict(sorted((self._stretches | {row["n"]: row for row in rows}).items()))

    def _check_owner(self, row: Row | None) -> None:
        if row is not None and self._user_id is not None and row["user_id"] != self._user_id:
            raise ThreadOwnedByAnother(f"thread {self._thread_id} belongs to another user")


def ending_of(ledger: Ledger, job_id: str) -> Ending:
    """Asks the ledger for the event of the job's end; see threadline.log.reader."""

    async def ending() -> Event | None:
        row = await ledger.database.row(ledger.queries["transition"], {"job_id": job_id})
        if row is None:
            raise JobNotFound(f"job {job_id} is not known any more")
        if row["state"] not in ENDED:
            return None
        return msgspec.structs.replace(event_of(ledger.opened(row)), prev=_before(row))

    return ending


def _before(row: Row) -> str | None:
    """The position right before the end, where the ledger knows it: who has read up to there misses nothing."""
    if row["epoch"] == 1:
        return "0-1"
    top = row["log_top"]  # of the epoch before, unless transitions without a worker lie between
    return top if top and EventId.parse(top).epoch == row["epoch"] - 1 else None
