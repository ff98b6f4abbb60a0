"""The spans `job` and `run`: each claim's run is below the job's span, whichever worker had it and however it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
from langchain_core.callbacks import BaseCallbackHandler

from threadline.contract.states import ENDED, Code, State
from threadline.contract.traceparent import job_span_id, run_span_id, span_id_of, trace_id_of, well_formed
from threadline_worker.telemetry.trace_steps import TraceSteps
from threadline_worker.telemetry.traces import NO_TRACE, Export, RunTrace, Span, Traces, harmless

if TYPE_CHECKING:
    from threadline.ledger.custody import Claim

__all__ = ["JobTraces"]

log = structlog.get_logger(__name__)

#: Ways to give a job back that are nobody's fault.
_NO_FAULT: Final = frozenset({Code.DRAIN, Code.LOST_CLAIM, None})


class JobTraces(Traces):
    """Of all jobs of a worker."""

    def __init__(self, export: Export) -> None:
        self._export = export

    def run(self, claim: Claim) -> RunTrace:
        """The trace of a claim that begins now; operations on threads have none."""
        if claim.kind == "internal":
            return NO_TRACE
        try:
            return _JobRun(self._export, claim)
        except Exception:  # a sampler is anyone's code
            log.warning("trace.failed", exc_info=True)
            return NO_TRACE

    @harmless
    def taken(self, row: Mapping[str, Any]) -> None:
        """The run of a worker that died or was late ends here; so does the job, unless it is queued again."""
        traceparent = well_formed((row.get("options") or {}).get("traceparent"))
        if row["kind"] == "internal" or not self._export.sampled(row["job_id"], traceparent):
            return
        run = Span(
            f"run {row['agent']}",
            _trace_number(row["job_id"], traceparent),
            # Taking it has raised the epoch by one.
            int(run_span_id(row["job_id"], row["epoch"] - 1), 16),
            int(job_span_id(row["job_id"]), 16),
            _nanoseconds(row["claimed_at"]),
            _nanoseconds(row["transition_at"]),
            {
                **_named(row),
                "threadline.worker_id": row["previous_worker"] or "",
                "threadline.epoch": row["epoch"] - 1,
                "threadline.state": row["state"],
                "threadline.code": row["code"] or "",
            },
            error=row["code"] or row["transition"],
            kind="consumer",
        )
        self._export.send([run])
        if row["state"] in ENDED:
            self._export.send([_job(row, row, traceparent)])

    async def close(self, limit: float) -> None:
        """Send what is left, for at most so many seconds."""
        await self._export.close(limit)


class _JobRun(RunTrace):
    """One claim of a job, recorded if its trace is sampled."""

    def __init__(self, export: Export, claim: Claim) -> None:
        self._export = export
        self._traceparent = well_formed(claim.options.get("traceparent"))
        self._trace_id = _trace_number(claim.job_id, self._traceparent)
        self._sampled = export.sampled(claim.job_id, self._traceparent)
        self._started = time.time_ns()
        self.lifted(claim)
        self._steps = TraceSteps(export, self._trace_id, lambda: self._span_id) if self._sampled else None
        self.callbacks: Sequence[BaseCallbackHandler] = [] if self._steps is None else [self._steps]

    def lifted(self, claim: Claim) -> None:
        """The span's id follows from the epoch, so that a rescuer knows it, too."""
        self._span_id = int(run_span_id(claim.job_id, claim.epoch), 16)

    @harmless
    def attach(self) -> None:
        """Also where nothing is recorded: a tool's own spans are then left out as well."""
        self._export.attach(self._trace_id, self._span_id, is_sampled=self._sampled)

    @harmless
    def committed(self, namespace: str, step: int) -> None:
        """A super-step is durable."""
        if self._steps is not None:
            self._steps.committed(namespace, step)

    @harmless
    def ended(self, claim: Claim, row: Mapping[str, Any] | None) -> None:
        """The run's span, and the job's if it has ended."""
        if self._steps is None:
            return
        self._steps.close()
        if row is None:
            return
        fault = row["state"] == State.FAILED or (row["state"] == State.QUEUED and row["code"] not in _NO_FAULT)
        run = Span(
            f"run {claim.agent}",
            self._trace_id,
            self._span_id,
            int(job_span_id(claim.job_id), 16),
            self._started,
            time.time_ns(),
            {
                **_named(claim.row),
                **_told(claim),
                "threadline.state": row["state"],
                "threadline.code": row["code"] or "",
            },
            error=row["code"] or "error" if fault else None,
            kind="consumer",
        )
        self._export.send([run])
        if row["state"] in ENDED:
            self._export.send([_job(row, claim.row, self._traceparent)])


def _job(row: Mapping[str, Any], born: Mapping[str, Any], traceparent: str | None) -> Span:
    """The whole job, from its enqueueing to its end. `born` has the columns of its beginning."""
    asked_by = span_id_of(traceparent)
    return Span(
        f"job {row['agent']}",
        _trace_number(row["job_id"], traceparent),
        int(job_span_id(row["job_id"]), 16),
        None if asked_by is None else int(asked_by, 16),
        _nanoseconds(born["created_at"]),
        _nanoseconds(row["transition_at"]),
        {
            **_named(row),
            "gen_ai.conversation.id": row["thread_id"],
            "threadline.epoch": row["epoch"],
            "threadline.state": row["state"],
            "threadline.code": row["code"] or "",
        },
        error=row["code"] or "error" if row["state"] == State.FAILED else None,
        kind="consumer",
        links=_asked(born.get("resumes"), traceparent),
    )


def _asked(asking: str | None, traceparent: str | None) -> Sequence[tuple[int, int]]:
    """An answer's job goes on from the job that asked. Its options, and so its traceparent, were inherited."""
    return () if asking is None else ((_trace_number(asking, traceparent), int(job_span_id(asking), 16)),)


def _named(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "threadline.job_id": row["job_id"],
        "threadline.thread_id": row["thread_id"],
        "threadline.agent": row["agent"],
    }


def _told(claim: Claim) -> dict[str, str | int]:
    found = {
        "threadline.worker_id": claim.worker_id,
        "threadline.epoch": claim.epoch,
        "threadline.kind": "start" if claim.first else "resume",
        "threadline.checkpoint_id": claim.row["checkpoint_id"],
        "threadline.previous_worker_id": claim.row["previous_worker"],
    }
    return {name: value for name, value in found.items() if value is not None}


def _trace_number(job_id: str, traceparent: str | None) -> int:
    return int(trace_id_of(job_id, traceparent), 16)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
