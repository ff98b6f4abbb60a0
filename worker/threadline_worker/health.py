"""Says whether this worker lives, is ready and may claim, each with its reasons; called from any thread."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from threadline_worker.liveness import MAX_SKEW_SECONDS, Liveness
from threadline_worker.refusals import Refusals
from threadline_worker.runs import Runs

if TYPE_CHECKING:
    from threadline_worker.sweep import Sweep

__all__ = ["Health"]

#: A server that has not answered for so long is named in /readyz; the sweep asks both once a second.
_AWAY_SECONDS = 5.0
#: A loop or a beat that has not answered for so long turns /healthz red, well before the process ends itself.
_WEDGED_SECONDS = 30.0


class Health:
    """Reads what others know; asks no server."""

    def __init__(
        self,
        runs: Runs,
        liveness: Liveness,
        sweep: Sweep,
        refusals: Refusals,
        draining: asyncio.Event,
        *,
        loop_stall: float,
    ) -> None:
        self._runs = runs
        self._liveness = liveness
        self._sweep = sweep
        self._refusals = refusals
        self._draining = draining
        self._began = time.monotonic()
        self._wedged = min(_WEDGED_SECONDS, loop_stall / 2)

    def unhealthy(self) -> list[str]:
        """Why /healthz is red: the process should be started again."""
        reasons = []
        if (seconds := self._liveness.seconds_since_tick()) > self._wedged:
            reasons.append(f"the event loop has not answered for {seconds:.0f} s")
        if not self._liveness.beating():
            reasons.append("the heartbeat's thread does not answer")
        return reasons

    def unready(self) -> list[str]:
        """Why /readyz is red: this worker takes no jobs now."""
        reasons = list(self._claim_reasons())
        now = time.monotonic()
        if now - self._sweep.redis_ok_at > _AWAY_SECONDS:
            why = self._sweep.redis_trouble
            reasons.append(f"Redis takes no jobs from us: {why}" if why else "Redis does not answer")
        if now - self._sweep.postgres_ok_at > _AWAY_SECONDS:
            why = self._sweep.postgres_trouble
            reasons.append(f"Postgres does not answer us: {why}" if why else "Postgres does not answer")
        return reasons

    def answers(self, backend: Literal["redis", "postgres"]) -> bool:
        """Whether this server has answered within the last seconds; both did just before a worker begins."""
        answered = self._sweep.redis_ok_at if backend == "redis" else self._sweep.postgres_ok_at
        return time.monotonic() - max(answered, self._began) <= _AWAY_SECONDS

    def may_claim(self) -> bool:
        """Whether the tap is open (slots aside)."""
        return not self._claim_reasons()

    def _claim_reasons(self) -> list[str]:
        reasons = []
        if self._draining.is_set():
            reasons.append("draining")
        if not self._liveness.fresh():
            why = self._liveness.trouble
            reasons.append("its last beat is older than the lease" + (f": {why}" if why else ""))
        if not self._liveness.clock_ok():
            reasons.append(
                f"this clock is {self._liveness.skew:.1f} s off the database's (at most {MAX_SKEW_SECONDS:g})"
            )
        if self._liveness.in_recovery:
            reasons.append("Postgres is a read-only replica")
        if why := self._sweep.postgres_refuses or self._refusals.why():
            reasons.append(why)
        return reasons
