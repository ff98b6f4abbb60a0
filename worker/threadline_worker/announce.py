"""Publishes transitions' events from the ledger's rows: whoever comes first, once, also for a worker that died (P1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from threadline.errors import BackendUnavailable, CannotDecrypt
from threadline.ledger.custody import Custody
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import Appended, EventLog
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.telemetry.job_fields import job_fields
from threadline_worker.telemetry.metrics import Metrics

__all__ = ["Announcer"]

log = structlog.get_logger(__name__)
#: Transitions younger than this are left to the process that made them.
_GRACE_SECONDS = 2.0


class Announcer:
    """Appends `<epoch>-1` events."""

    def __init__(self, ledger: Custody, events: EventLog, metrics: Metrics) -> None:
        self._ledger = ledger
        self._events = events
        self._metrics = metrics

    async def append(self, row: Mapping[str, Any], *, step: int | None = None) -> Appended:
        """Append the event of the row's epoch. Raises redis' errors, CannotDecrypt."""
        event = event_of(self._ledger.opened(row), step=step)
        queued = self._events.encode(queued_event(row["job_id"], row["thread_id"], row["agent"]))
        answer = await self._events.append(
            row["job_id"],
            row["thread_id"],
            row["epoch"],
            [(1, self._events.encode(event))],
            queued=queued,
            log_top=row["log_top"],
        )
        self._metrics.events_published.labels(type=event.type).inc()
        return answer

    async def announce(self, row: Mapping[str, Any]) -> None:
        """Append and note it in the ledger; what does not work now the sweep repeats."""
        try:
            if row.get("kind") == "internal":  # nobody's progress: no log, and not a word on the thread's channel (L9)
                await self._events.nudge(row["job_id"])
            else:
                await self.append(row)
            # A stale epoch counts as announced: the log already tells a later story.
            await self._ledger.announced(row["job_id"], row["epoch"])
        except (*REDIS_ERRORS, BackendUnavailable, CannotDecrypt) as error:
            log.warning("announce.failed", **job_fields(row), error=reason(error))

    async def announce_missed(self) -> int:
        """Announce what nobody has announced in time; how many."""
        rows = await self._ledger.unannounced(_GRACE_SECONDS)
        for row in rows:
            await self.announce(row)
        return len(rows)
