"""Publishing switched off for a measurement: the events of jobs on threads `unpublished-…` are taken and dropped.

For workers of benchmarks only, whose agents call `install`; the product has no such switch. Left as it is: what
LangGraph streams, and the event of the job's end, by which whoever waits for its result is woken.
"""

from __future__ import annotations

from typing import Any, Final

from threadline.ledger.custody import Claim
from threadline_worker import execution
from threadline_worker.publisher import Publisher

__all__ = ["UNPUBLISHED", "install"]

#: How the ids of these threads begin.
UNPUBLISHED: Final = "unpublished-"

_offer = Publisher.offer
_announce_claim = execution.Execution._announce_claim


def install() -> None:
    """For the rest of this process."""
    Publisher.offer = _offer_or_drop  # type: ignore[method-assign]  # the switch
    execution.Execution._announce_claim = _announce_or_not  # type: ignore[method-assign]  # the same


def _offer_or_drop(self: Publisher, *part: Any, **named: Any) -> None:
    if not self._thread_id.startswith(UNPUBLISHED):
        _offer(self, *part, **named)


async def _announce_or_not(self: execution.Execution, claim: Claim, step: int | None) -> execution._Lifted | None:
    if claim.thread_id.startswith(UNPUBLISHED):
        return execution._Lifted(claim, None)
    return await _announce_claim(self, claim, step)
