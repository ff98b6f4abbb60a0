"""What becomes of a message: the job in it is adopted into the ledger (L5), claimed, and handed to a run of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from threadline.errors import BackendUnavailable
from threadline.ledger.custody import Claim
from threadline_worker.adoption import Adoption
from threadline_worker.consumer import later
from threadline_worker.execution import Execution
from threadline_worker.runs import Run, Runs
from threadline_worker.telemetry.job_fields import job_fields

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Intake"]

log = structlog.get_logger(__name__)


class Intake:
    """`take()` is arq's handler; `spawn` owns the runs that it starts."""

    def __init__(
        self,
        services: Services,
        adoption: Adoption,
        runs: Runs,
        worker_id: str,
        spawn: Callable[[Any], asyncio.Task[None]],
    ) -> None:
        self._services = services
        self._adoption = adoption
        self._runs = runs
        self._worker_id = worker_id
        self._spawn = spawn
        self._suspects = asyncio.Lock()

    async def take(self, message_id: str, job_id: str, job: Any) -> None:
        """Returns once the job is claimed here, or somebody else's, or can never be one. Else arq's Retry."""
        if self._services.liveness.draining:
            raise later(0.05)  # others are to have it
        try:
            if job is not None and not await self._adoption.adopt(message_id, job_id, job, dispatching=True):
                return
            if stalls := await self._stalls(message_id, job_id):
                # One after another, so that each sees whom the one before it left running.
                async with self._suspects:
                    if not self._runs.bears(stalls):
                        raise later(1.0)
                    await self._claim(message_id, job_id)
            else:
                await self._claim(message_id, job_id)
        except BackendUnavailable:
            raise later(1.0) from None

    async def _claim(self, message_id: str, job_id: str) -> None:
        with self._runs.reserve(job_id):
            if self._runs.get(job_id) is not None:
                # Running; or lost, queued again, and not yet stopped here.
                await self._not_claimed(message_id, job_id)
                return
            claim = await self._services.ledger.claim(job_id, self._worker_id)
            match claim:
                case Claim():
                    self._start(claim)
                case None:
                    await self._not_claimed(message_id, job_id)
                case row:
                    self._note_end(row)
                    await self._services.announcer.announce(row)

    async def _stalls(self, message_id: str, job_id: str) -> int:
        """How often in a row the job's worker died without a checkpoint (L7); no question for a job's first message."""
        if message_id in {job_id, f"{job_id}:0:1"}:
            return 0
        ledger = self._services.ledger
        row = await ledger.database.row(ledger.queries["status"], {"job_id": job_id})
        return 0 if row is None else int(row["stalls"])

    def _start(self, claim: Claim) -> None:
        run = Run(claim)
        self._runs.add(run)
        if self._services.liveness.draining:
            run.drain()  # the drain began while the claim was under way
        self._spawn(self._run(run))

    async def _not_claimed(self, message_id: str, job_id: str) -> None:
        """Somebody has it, or it could not be claimed now.

        This message ends here: if the job waits, the sweep shall send another at once, not when this one is missed.
        """
        log.debug("job.claimed", job_id=job_id, claimed=False)
        number = message_id.removeprefix(job_id).rpartition(":")[2] or "1"
        if number.isascii() and number.isdigit():
            await self._services.ledger.undispatch(job_id, int(number))

    def _note_end(self, row: Mapping[str, Any]) -> None:
        log.info("job.finished", **job_fields(row), state=row["state"], code=row["code"])
        if row.get("kind") == "internal":
            return
        self._services.metrics.jobs_finished.labels(
            agent=row["agent"], state=row["state"], code=row["code"] or ""
        ).inc()

    async def _run(self, run: Run) -> None:
        try:
            await Execution(self._services, run).execute()
        finally:
            self._runs.remove(run)
