"""What becomes of a message: the job in it is adopted into the ledger (L5), claimed, and handed to a run of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from threadline.contract.job import decode_request
from threadline.contract.signature import verify
from threadline.contract.states import State
from threadline.errors import BackendUnavailable, InvalidJob, ThreadBusy, ThreadlineError
from threadline.ledger.custody import Claim
from threadline_worker.consumer import later
from threadline_worker.execution import Execution
from threadline_worker.runs import Run, Runs

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Intake"]

log = structlog.get_logger(__name__)


class Intake:
    """`take()` is arq's handler; `spawn` owns the runs that it starts."""

    def __init__(
        self, services: Services, runs: Runs, worker_id: str, spawn: Callable[[Any], asyncio.Task[None]]
    ) -> None:
        self._services = services
        self._runs = runs
        self._worker_id = worker_id
        self._spawn = spawn

    async def take(self, message_id: str, job_id: str, job: Any) -> None:
        """Returns once the job is claimed here, or somebody else's, or can never be one. Else arq's Retry."""
        try:
            if job is not None and not await self._adopt(message_id, job_id, job):
                return
            await self._claim(job_id)
        except BackendUnavailable:
            raise later(1.0) from None

    async def dead_letter(self, message_id: str, why: str, body: bytes | None) -> None:
        """Set a message aside where `doctor` shows it. Raises BackendUnavailable: the message stays."""
        log.warning("queue.dead_letter", message_id=message_id, reason=why)
        await self._services.ledger.dead_letter(message_id, why, body)

    async def _claim(self, job_id: str) -> None:
        with self._runs.reserve(job_id):
            if self._runs.get(job_id) is not None:
                return
            claim = await self._services.ledger.claim(job_id, self._worker_id)
            match claim:
                case Claim():
                    run = Run(claim)
                    self._runs.add(run)
                    self._spawn(self._run(run))
                case None:
                    log.debug("job.claimed", job_id=job_id, claimed=False)
                case row:
                    self._note_end(row)
                    await self._services.announcer.announce(row)

    def _note_end(self, row: Mapping[str, Any]) -> None:
        log.info("job.finished", job_id=row["job_id"], state=row["state"], code=row["code"])
        self._services.metrics.jobs_finished.labels(
            agent=row["agent"], state=row["state"], code=row["code"] or ""
        ).inc()

    async def _run(self, run: Run) -> None:
        try:
            await Execution(self._services, run).execute()
        finally:
            self._runs.remove(run)

    async def _adopt(self, message_id: str, job_id: str, job: Any) -> bool:
        """Insert the job that the message carries. False: it can never become one, and is set aside."""
        try:
            if not isinstance(job, dict) or job.get("job_id") != job_id:
                raise InvalidJob("the message's job is not an object with the same job_id")
            verify(job, self._services.settings.client.enqueue_keys)
            request = decode_request(job)
            await self._services.ledger.enqueue(
                request, fingerprint=request.fingerprint(), dispatching=True, check_agent=False
            )
        except BackendUnavailable:
            raise
        except ThreadBusy as error:
            await self.dead_letter(message_id, f"on_busy=reject: {error}", None)
            return False
        except ThreadlineError as error:
            await self.dead_letter(message_id, f"{type(error).__name__}: {error}", None)
            return False
        log.info("job.adopted", job_id=job_id, state=State.QUEUED)
        return True
