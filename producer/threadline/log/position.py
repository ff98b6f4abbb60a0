"""P2: a reader knows whether the next event follows without a hole; if not, it says what is missing."""

from __future__ import annotations

from threadline.contract.events import Event, EventId, EventType

__all__ = ["Position"]


class Position:
    """Where a reader is in one job's log, and whether the next event follows without a hole."""

    def __init__(self, job_id: str, after: EventId | None = None, *, thread_id: str = "") -> None:
        self.job_id = job_id
        self.last = after
        self._step: int | None = None
        self._thread_id = thread_id

    def seen(self, event: Event) -> bool:
        """Whether the event is at or before this position."""
        return self.last is not None and event.position is not None and event.position <= self.last

    def follows(self, event: Event) -> bool:
        """Whether nothing is missing between this position and the event (P2)."""
        position = event.position
        if position is None:
            return True
        if self._lost_steps(event):
            return False
        if self.last is None:
            # From the beginning: `queued`, or the first claim of a job that nobody announced as queued.
            return position.n == 1 and (position.epoch == 0 or (position.epoch == 1 and event.prev is None))
        if position.n == 1:
            return event.prev == str(self.last)  # a transition names the id before it
        return position == (self.last.epoch, self.last.n + 1)

    def advance(self, event: Event) -> None:
        """Move behind the event."""
        self.last = event.position or self.last
        self._thread_id = event.thread_id
        if event.step is not None and not event.ns and _shows_its_step(event):
            self._step = event.step

    def gap(self, upto: Event | None) -> Event:
        """The event that says what is missing before `upto`; None: the rest of the log."""
        data = {"after": str(self.last) if self.last else None, "next": upto.id if upto else None}
        thread_id = upto.thread_id if upto else self._thread_id
        return Event(job_id=self.job_id, thread_id=thread_id, type=EventType.GAP, data=data)

    def _lost_steps(self, event: Event) -> bool:
        """Whether a pick-up goes on behind steps that were committed but never shown."""
        return (
            event.type == EventType.RESUMED
            and event.step is not None
            and self._step is not None
            and event.step > self._step
        )


def _shows_its_step(event: Event) -> bool:
    """Whether the event is told when its step is over: a token or a task's beginning proves nothing about the rest."""
    if event.type in {"messages", "custom", "tools"}:
        return False
    if isinstance(event.data, dict):
        return not (
            (event.type == "tasks" and "input" in event.data)
            or (event.type == "debug" and event.data.get("type") == "task")
        )
    return True
