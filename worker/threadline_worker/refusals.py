"""Postgres refuses what runs write: to everybody, and nobody is charged; or to one job alone, which is (F5, L7).

A full disk, a standby and a right that was taken away meet all jobs alike. Without memory, or a page that can be read,
it may be one job's own value or thread: if others could write meanwhile, it is, and its retries have an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from threadline.contract.states import Code
from threadline.errors import BackendUnavailable
from threadline.redis_client import reason
from threadline_worker.checkpoints import CheckpointsAway, CheckpointsRefused
from threadline_worker.outcome import AWAY_SECONDS, Released, Retriable

__all__ = ["Refusals"]

log = structlog.get_logger(__name__)

#: After a refusal no job is claimed for so long; then some are tried. A try costs a step, maybe a model's call: while
#: nothing can be written, the pause doubles.
REFUSED_SECONDS = 5.0
_LONGEST: Final = 8
#: Jobs that are remembered.
_MOST: Final = 1_000


class Refusals:
    """Of one worker. `given_back` and `wrote` are for its main loop, `why` for any thread. `clock` is monotonic s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._why = ""
        self._pauses = 1
        self._written = True
        #: Jobs that were refused, and whether another one has written since.
        self._met: dict[str, bool] = {}

    def why(self) -> str:
        """Why no job is claimed now; "" if nothing was refused lately."""
        return self._why if self._clock() < self._until else ""

    def wrote(self, job_id: str) -> None:
        """A checkpoint of this job is durable."""
        self._written = True
        self._met.pop(job_id, None)
        for other in self._met:
            self._met[other] = True

    def given_back(self, job_id: str, error: BackendUnavailable | CheckpointsAway) -> Released | Retriable:
        """What becomes of a run that Postgres has cut off."""
        log.warning("job.failed", error=reason(error))
        if isinstance(error, CheckpointsRefused):
            if self._met.pop(job_id, False) and not error.of_all:
                return Retriable(Code.TRANSIENT, f"Postgres refuses this job what it allows others: {error}"[:2000])
            self._note(job_id, str(error))
        return Released(Code.TRANSIENT, delay=AWAY_SECONDS)

    def _note(self, job_id: str, why: str) -> None:
        self._met[job_id] = False
        if len(self._met) > _MOST:
            del self._met[next(iter(self._met))]
        now = self._clock()
        self._why = why
        if now < self._until:  # those that ran beside the first one meet the same
            return
        self._pauses = 1 if self._written else min(self._pauses * 2, _LONGEST)
        self._until, self._written = now + REFUSED_SECONDS * self._pauses, False
