"""Traces of jobs: switched on by the standard OTEL_ variables, free of cost without, and never a job's concern.

A job is one trace, whatever becomes of its workers: the spans `job` and `run` have ids that follow from the job's id
and the claim's epoch, so that the next worker, and whoever takes a job from a dead one, go on in the same trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, Protocol

import structlog
from langchain_core.callbacks import BaseCallbackHandler

if TYPE_CHECKING:
    from threadline.ledger.custody import Claim

__all__ = [
    "NO_TRACE",
    "NO_TRACES",
    "Export",
    "RunTrace",
    "Span",
    "Traces",
    "harmless",
    "missing_extra",
    "traces_of",
    "wanted",
]

P = ParamSpec("P")

log = structlog.get_logger(__name__)

_EXTRA: Final = "pip install 'threadline[tracing]'"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NONE: Final = frozenset({"", "none"})


class Span(NamedTuple):
    """A span that is over. Ids are numbers, times nanoseconds since 1970; `error` is a type or code, never words."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start: int
    end: int
    attributes: Mapping[str, str | int | bool | Sequence[str]]
    error: str | None = None
    #: OpenTelemetry's kind: internal, client, consumer.
    kind: str = "internal"
    #: (trace id, span id) of what it goes on from.
    links: Sequence[tuple[int, int]] = ()


class Export(Protocol):
    """Takes spans without waiting, and drops them rather than keep a job waiting."""

    def sampled(self, job_id: str, traceparent: str | None) -> bool:
        """Whether this job's trace is recorded; every worker with the same configuration says the same."""

    def new_id(self) -> int:
        """A span id of nobody's."""

    def send(self, spans: Iterable[Span]) -> None:
        """Queue them."""

    def attach(self, trace_id: int, span_id: int, *, is_sampled: bool) -> None:
        """What the current task's code records by itself belongs below this span."""

    async def close(self, limit: float) -> None:
        """Send what is queued, for at most so many seconds."""


def harmless(method: Callable[P, None]) -> Callable[P, None]:
    """A trace that cannot be told is said in the log: the job and the sweep go on."""

    @wraps(method)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:  # samplers and exporters are anyone's code
            log.warning("trace.failed", exc_info=True)

    return told


class RunTrace:
    """The trace of one claim; this one records nothing."""

    callbacks: Sequence[BaseCallbackHandler] = ()

    def lifted(self, claim: Claim) -> None:
        """The claim has another epoch now; nothing has run yet."""

    def attach(self) -> None:
        """Called in the task that runs the graph."""

    def committed(self, namespace: str, step: int) -> None:
        """A super-step of the graph at this checkpoint namespace is durable."""

    def ended(self, claim: Claim, row: Mapping[str, Any] | None) -> None:
        """The ledger's row after the claim; None: somebody else has the job, and tells how this claim ended."""


class Traces:
    """All traces of a worker; this one records none."""

    def run(self, claim: Claim) -> RunTrace:  # noqa: ARG002 - what a recording one looks at
        """The trace of a claim that begins now."""
        return NO_TRACE

    def taken(self, row: Mapping[str, Any]) -> None:
        """A job was taken from its worker, which can no longer say how its claim ended."""

    async def close(self, limit: float) -> None:
        """Send what is left, for at most so many seconds."""


NO_TRACE: Final = RunTrace()
NO_TRACES: Final = Traces()


def wanted(env: Mapping[str, str]) -> str | None:
    """The variable that asks for traces; None if nobody does, or OTEL_SDK_DISABLED or the exporter `none` says no."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = env.get("OTEL_TRACES_EXPORTER")
    if exporter is not None:
        return None if exporter.strip().lower() in _NONE else "OTEL_TRACES_EXPORTER"
    return next((name for name in _ENDPOINTS if env.get(name, "").strip()), None)


def missing_extra(env: Mapping[str, str]) -> str | None:
    """What to say if traces are asked for and OpenTelemetry's SDK is not installed, or cannot be."""
    name = wanted(env)
    if name is None:
        return None
    try:
        import opentelemetry.sdk.trace  # noqa: F401, PLC0415 - only where it is asked for
    except ModuleNotFoundError:
        return f"{name} asks for traces, and OpenTelemetry is not installed: {_EXTRA}"
    except ValueError as error:  # it reads some of its variables while it is imported
        return f"no traces: an OTEL_ variable cannot be followed: {error}"
    return None


def traces_of(env: Mapping[str, str], worker_id: str) -> Traces:
    """What the environment asks for. What does not work is logged once: no worker stays away for its traces."""
    if wanted(env) is None:
        return NO_TRACES
    if (problem := missing_extra(env)) is not None:
        log.warning("worker.configuration", problem=problem)
        return NO_TRACES
    from threadline_worker.telemetry.trace_export import TracesUnusable, open_export  # noqa: PLC0415 - heavy
    from threadline_worker.telemetry.trace_run import JobTraces  # noqa: PLC0415

    try:
        export = open_export(env, worker_id)
    except TracesUnusable as error:
        log.warning("worker.configuration", problem=f"no traces: {error}")
        return NO_TRACES
    log.info("worker.configuration", traces=export.exporters)
    return JobTraces(export)
