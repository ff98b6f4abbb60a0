"""A thread's agenda from Redis alone: the jobs that are heard of from now on; where some may be missing, it says so."""

from __future__ import annotations

from threadline.contract.events import Event, EventId, EventType
from threadline.log.feed import Heard
from threadline.log.reader import Ending
from threadline.log.thread import Turn

__all__ = ["HeardAgenda"]


class HeardAgenda:
    """See threadline.log.thread.Agenda. It begins with the job of `after`, if there is one."""

    def __init__(self, thread_id: str, after: Turn | None) -> None:
        self._thread_id = thread_id
        self._last = after
        self._told: dict[str, EventId] = {}
        #: Jobs that have begun, in the order in which that was heard, with the highest position heard.
        self._due: dict[str, EventId] = {}
        if after is not None and after.after is not None:
            self._told[after.job_id] = after.after
            self._due[after.job_id] = after.after
        # What ran since `after` was yielded, nobody can tell, unless its job goes on.
        self._resuming = after is not None
        self._missing = False

    async def next(self) -> Turn | None:
        """The first that began."""
        for job_id in self._due:
            return Turn(job_id, self._told.get(job_id))
        return None

    def hear(self, heard: Event | Heard) -> None:
        """Remember the job, unless it only waits: its log will be read from the start once it begins."""
        position = heard.position if isinstance(heard, Event) and heard.thread_id == self._thread_id else None
        if not isinstance(heard, Event) or position is None or heard.type == EventType.QUEUED:
            return
        told = self._told.get(heard.job_id)
        if told is None or position > told:
            self._due[heard.job_id] = max(position, self._due.get(heard.job_id, position))

    def told(self, turn: Turn, last: EventId | None, *, was_live: bool) -> None:
        """Done with it, unless more was heard of it meanwhile."""
        if last is not None:
            self._told[turn.job_id] = last
            self._last = Turn(turn.job_id, last)
        if last is None or last == turn.after or last >= self._due.get(turn.job_id, last):
            self._due.pop(turn.job_id, None)
        # If it had not ended when it was read, no other one has come and gone: one job of a thread runs at a time.
        self._missing = (self._missing or self._resuming) and not was_live
        self._resuming = False

    def reconnected(self) -> None:
        """Jobs may have come and gone."""
        self._missing = True

    def gap(self) -> Event | None:
        """A gap of the thread: no job id, `after` the position that was told last."""
        if not self._missing:
            return None
        self._missing = False
        after = f"{self._last.job_id}/{self._last.after}" if self._last else None
        return Event(job_id="", thread_id=self._thread_id, type=EventType.GAP, data={"after": after, "next": None})

    def ending(self, job_id: str) -> Ending | None:
        """Nobody can be asked."""
        del job_id
        return None
