"""At each beat the runs here are brought in line with the ledger: what is not ours stops, what was lost goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from threadline.errors import BackendUnavailable
from threadline.ledger.custody import Custody
from threadline_worker.liveness import Beat, Owned
from threadline_worker.runs import Runs
from threadline_worker.telemetry.job_fields import job_fields
from threadline_worker.telemetry.metrics import Metrics

__all__ = ["Reconciler"]

log = structlog.get_logger(__name__)


class Reconciler:
    """`heard(beat)` is called in the main loop for each beat; `spawn` owns the tasks that it starts."""

    def __init__(
        self,
        ledger: Custody,
        runs: Runs,
        worker_id: str,
        metrics: Metrics,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        register: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._ledger = ledger
        self._runs = runs
        self._worker_id = worker_id
        self._metrics = metrics
        self._spawn = spawn
        self._register = register
        self._registering: asyncio.Task[None] | None = None

    def heard(self, beat: Beat) -> None:
        """Compare what the ledger gives us with what we run (L6, V5)."""
        if not beat.alive:
            self._declared_dead()
            return
        owned = {job.job_id: job for job in beat.owned}
        for job_id, epoch in beat.asked.items():
            self._check(job_id, epoch, owned.get(job_id))
        for job in beat.owned:
            if job.job_id not in beat.asked and not self._runs.claiming(job.job_id) and not self._runs.get(job.job_id):
                self._spawn(self._give_back(job))

    def _check(self, job_id: str, epoch: int, owned: Owned | None) -> None:
        run = self._runs.get(job_id)
        if run is None or run.claim.epoch != epoch:
            return  # it ended while the beat was under way
        if owned is None or owned.epoch != epoch:
            run.lose()
        elif owned.cancel is not None:
            if run.stopping is None:
                log.info("job.cancel", **job_fields(run.claim._asdict()), code=owned.cancel)
            run.cancel(owned.cancel, rollback=owned.rollback)

    def _declared_dead(self) -> None:
        """V5: others have our jobs. Stop them and begin anew."""
        for run in self._runs:
            run.lose()
        if self._registering is None or self._registering.done():
            log.warning("worker.declared_dead")
            self._registering = self._spawn(self._register_again())

    async def _register_again(self) -> None:
        try:
            await self._register()
        except BackendUnavailable as error:  # the next beat asks for it again
            log.warning("beat.failed", error=str(error))

    async def _give_back(self, job: Owned) -> None:
        """L6: a claim committed but its answer never arrived."""
        try:
            row = await self._ledger.release_lost(job.job_id, job.epoch, self._worker_id)
        except BackendUnavailable:
            return  # the next beat finds it again
        if row is not None:
            log.warning("claim.lost", **{**job_fields(row), "epoch": job.epoch})
            self._metrics.jobs_rescued.labels(cause="lost_message").inc()
