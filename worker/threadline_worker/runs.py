"""The jobs in this worker's hands: slots are never exceeded, and why a run shall stop travels as a value."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from langgraph.runtime import RunControl

from threadline.ledger.custody import Claim
from threadline_worker.outcome import Cancelled, Lost, Outcome, Released
from threadline_worker.telemetry.traces import NO_TRACE, RunTrace

__all__ = ["Run", "Runs"]


@dataclass(eq=False)
class Run:
    """One claimed job. `control` stops it at the next super-step, `stop()` at once."""

    claim: Claim
    control: RunControl = field(default_factory=RunControl)
    #: What the run ends as if it is stopped from outside; the first reason counts, except that a lost lease wins.
    stopping: Outcome | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    #: The last position that was given to an event of this run, whether it arrived or not.
    log_top: str | None = None
    #: When it was claimed, on this process' monotonic clock.
    began: float = field(default_factory=time.monotonic)
    trace: RunTrace = NO_TRACE
    #: Whether a checkpoint of this claim is durable.
    progressed: bool = False

    @property
    def stalls(self) -> int:
        """How often in a row the job's worker died without a checkpoint in between (L7)."""
        return int(self.claim.row["stalls"])

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.claim.job_id

    def drain(self) -> None:
        """Stop at the next super-step and give the job back."""
        self._because(Released())
        self.control.request_drain("drain")

    def cut(self) -> None:
        """Stop in mid-step and give the job back."""
        self._because(Released())
        self.stopped.set()

    def cancel(self, code: str, *, rollback: bool) -> None:
        """End the job: at once, or for a successor (`replaced`) at the next super-step."""
        if isinstance(self.stopping, Lost):
            return
        self.stopping = Cancelled(code, rollback)
        if code == "replaced" and not rollback:
            self.control.request_drain("replaced")
        else:
            self.stopped.set()

    def lose(self) -> None:
        """The ledger gave the job to somebody else: stop at once and write nothing."""
        self.stopping = Lost()
        self.stopped.set()

    def _because(self, outcome: Outcome) -> None:
        self.stopping = self.stopping or outcome


class Runs:
    """All runs of a worker. `freed` is set whenever a slot became free."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.freed = asyncio.Event()
        self._runs: dict[str, Run] = {}
        self._reserved: dict[str, int] = {}

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def free(self) -> int:
        """Slots that neither a run nor a claim under way uses."""
        return self.slots - len(self._runs) - self.reserving

    @property
    def reserving(self) -> int:
        """Claims under way."""
        return sum(self._reserved.values())

    def get(self, job_id: str) -> Run | None:
        """The run of a job, if it is ours."""
        return self._runs.get(job_id)

    def bears(self, stalls: int) -> bool:
        """L7: whether a job that stalled so often may start beside these runs.

        When a worker dies, nobody knows which of its jobs did it. A job that stalled twice runs beside no other one
        under suspicion until it has made progress, so that a poisonous job never brings its neighbours to the limit.
        """
        suspicions = [run.stalls for run in self if run.stalls and not run.progressed]
        return not stalls or max([stalls, *suspicions]) == 1 or not suspicions

    def epochs(self) -> dict[str, int]:
        """Job → epoch of all runs; safe to call from the heartbeat's thread."""
        return {job_id: run.claim.epoch for job_id, run in list(self._runs.items())}

    def claiming(self, job_id: str) -> bool:
        """Whether a claim of this job is under way, so that its answer is not yet known."""
        return job_id in self._reserved

    @contextmanager
    def reserve(self, job_id: str) -> Iterator[None]:
        """Hold a slot while a claim is under way."""
        self._reserved[job_id] = self._reserved.get(job_id, 0) + 1
        try:
            yield
        finally:
            self._reserved[job_id] -= 1
            if not self._reserved[job_id]:
                del self._reserved[job_id]
            self.freed.set()

    def add(self, run: Run) -> None:
        """The run has begun."""
        self._runs[run.job_id] = run

    def remove(self, run: Run) -> None:
        """The run is over; a newer run of the same job is left alone."""
        if self._runs.get(run.job_id) is run:
            del self._runs[run.job_id]
        self.freed.set()
