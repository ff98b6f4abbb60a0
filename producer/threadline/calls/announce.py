"""P1: what a client changes, followers hear at once; where that fails, a worker's sweep tells them."""

from __future__ import annotations

from contextlib import suppress

from threadline.contract.states import Transition
from threadline.errors import CannotDecrypt
from threadline.ledger.ledger import Ledger
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import EventLog
from threadline.redis_client import REDIS_ERRORS

__all__ = ["Announcer"]


class Announcer:
    """Writes a client's own transitions into the log; without a log it says nothing."""

    def __init__(self, log: EventLog | None) -> None:
        self._log = log

    async def queued(self, job_id: str, thread_id: str, agent: str) -> None:
        """`0-1` of a new job. Raises redis' errors."""
        if self._log is not None:
            event = queued_event(job_id, thread_id, agent)
            await self._log.append(job_id, thread_id, 0, [(1, self._log.encode(event))])

    async def transition(self, ledger: Ledger, job_id: str, transition: Transition) -> None:
        """The job's latest transition, if it is the one that was made here. A server that is away is no error."""
        if self._log is None:
            return
        # BackendUnavailable is an OSError, too. What this process cannot read, a worker tells.
        with suppress(*REDIS_ERRORS, CannotDecrypt):
            row = await ledger.database.row(ledger.queries["transition"], {"job_id": job_id})
            if row is None or row["transition"] != transition:
                return  # it went on since: whoever made it do so tells
            queued = self._log.encode(queued_event(job_id, row["thread_id"], row["agent"]))
            events = [(1, self._log.encode(event_of(ledger.opened(row))))]
            await self._log.append(job_id, row["thread_id"], row["epoch"], events, queued=queued)
