"""Decides when the worker is killed: in the middle of the work, once its neighbour is able to notice at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from threadline.contract.events import Event, EventType

__all__ = ["Director"]

#: So many events of subagents are seen before the kill: research is under way then, and not yet done.
_UNDER_WAY = 8
#: At so many events the kill comes in any case, so that a short run is interrupted too.
_AT_THE_LATEST = 60


class Director:
    """`saw(event)` is called for each event of the job; `kill(worker_id)` once.

    `ready_at` is the monotonic moment from which a free advisory lock counts as evidence for the surviving worker
    (design.md V2); before it a dead worker is noticed by its silence only, which takes a whole lease.
    """

    def __init__(self, kill: Callable[[str], None], *, ready_at: float) -> None:
        self._kill = kill
        self._ready_at = ready_at
        self._worker_id = ""
        self._deep = 0
        self.received = 0
        self.gaps = 0
        self.killed_at: float | None = None
        self.resumed_at: float | None = None

    @property
    def pickup_seconds(self) -> float | None:
        """From the SIGKILL to the `resumed` event of the next worker."""
        if self.killed_at is None or self.resumed_at is None:
            return None
        return self.resumed_at - self.killed_at

    def saw(self, event: Event) -> None:
        """Count, and kill when the moment has come."""
        if event.type == EventType.GAP:
            self.gaps += 1
            return
        self.received += 1
        if event.type in {EventType.STARTED, EventType.RESUMED}:
            self._worker_id = str(event.data["worker_id"])
            if self.killed_at is not None and self.resumed_at is None:
                self.resumed_at = time.monotonic()
        self._deep += bool(event.ns)
        if self.killed_at is None and self._worker_id and self._now(event):
            self.killed_at = time.monotonic()
            self._kill(self._worker_id)

    def _now(self, event: Event) -> bool:
        under_way = bool(event.ns) and self._deep >= _UNDER_WAY and time.monotonic() >= self._ready_at
        return under_way or (self.received >= _AT_THE_LATEST and not event.terminal)
