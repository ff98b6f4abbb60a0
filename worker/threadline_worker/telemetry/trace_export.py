"""The one place that knows OpenTelemetry's SDK: spans wait in a bounded queue, and a thread of its own sends them."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from threadline import __version__
from threadline.contract import traceparent as w3c
from threadline_worker.telemetry.last_words import at_most
from threadline_worker.telemetry.traces import Span

__all__ = ["OtlpExport", "TracesUnusable", "open_export"]

#: Short, so that what a worker did is mostly on its way when it is killed. OTEL_BSP_SCHEDULE_DELAY overrides it.
_DELAY_MILLIS: Final = 500.0
_KINDS: Final = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}
_RECORDED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNRECORDED: Final = TraceFlags(TraceFlags.DEFAULT)


class TracesUnusable(Exception):  # noqa: N818 - it says what is the matter
    """The OTEL_ variables cannot be followed; the message says why."""


class OtlpExport:
    """See `threadline_worker.telemetry.traces.Export`. `exporters` are their names."""

    def __init__(
        self, exporters: Mapping[str, SpanExporter], resource: Resource, sampler: Sampler, delay: float | None
    ) -> None:
        self.exporters = ", ".join(exporters)
        self._resource = resource
        self._sampler = sampler
        self._scope = InstrumentationScope("threadline", __version__)
        self._processors = [
            BatchSpanProcessor(exporter, schedule_delay_millis=delay) for exporter in exporters.values()
        ]

    def sampled(self, job_id: str, traceparent: str | None) -> bool:
        """As the producer decided; else by the job's id, mixed: a uuid's own bits are not evenly distributed."""
        if traceparent is None:
            number = int(hashlib.sha256(job_id.encode()).hexdigest()[:32], 16)
            return self._sampler.should_sample(None, number, "job").decision is Decision.RECORD_AND_SAMPLE
        parent = self._context(
            int(w3c.trace_id_of(job_id, traceparent), 16),
            int(w3c.span_id_of(traceparent) or "1", 16),
            recorded=w3c.sampled(traceparent),
            remote=True,
        )
        within = trace.set_span_in_context(NonRecordingSpan(parent))
        return self._sampler.should_sample(within, parent.trace_id, "job").decision is Decision.RECORD_AND_SAMPLE

    def new_id(self) -> int:
        """Random, also where an agent has seeded Python's own generator; never zero, which is no id."""
        return secrets.randbits(64) or 1

    def send(self, spans: Iterable[Span]) -> None:
        """A full queue drops the oldest."""
        for span in spans:
            readable = self._readable(span)
            for processor in self._processors:
                processor.on_end(readable)

    def attach(self, trace_id: int, span_id: int, *, is_sampled: bool) -> None:
        """For the rest of the current task; tasks and threads that it begins inherit it."""
        span = NonRecordingSpan(self._context(trace_id, span_id, recorded=is_sampled))
        context_api.attach(trace.set_span_in_context(span))

    def provide(self) -> None:
        """What agents and tools record by themselves goes the same way, unless they have a provider of their own."""
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return
        # Below a run its decision counts; the configured sampler decides about what is outside of all runs.
        provider = TracerProvider(ParentBased(self._sampler), self._resource, shutdown_on_exit=False)
        for processor in self._processors:
            provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)

    async def close(self, limit: float) -> None:
        """The SDK's own end may take half a minute."""

        def shut_down() -> None:
            for processor in self._processors:
                processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no annotation there

        await at_most(limit, shut_down, "last traces")

    def _readable(self, span: Span) -> ReadableSpan:
        parent = None if span.parent_id is None else self._context(span.trace_id, span.parent_id)
        return ReadableSpan(
            name=span.name,
            context=self._context(span.trace_id, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes=dict(span.attributes) | ({} if span.error is None else {"error.type": span.error}),
            links=[Link(self._context(*of)) for of in span.links],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.start,
            end_time=max(span.end, span.start),
            instrumentation_scope=self._scope,
        )

    def _context(self, trace_id: int, span_id: int, *, recorded: bool = True, remote: bool = False) -> SpanContext:
        return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=_RECORDED if recorded else _UNRECORDED)


def open_export(env: Mapping[str, str], worker_id: str) -> OtlpExport:
    """Set up what the variables of this process name. Raises TracesUnusable."""
    level = logging.getLogger().level
    # Each retry is a warning; that a batch was lost is an error, and is said.
    logging.getLogger("opentelemetry.exporter").setLevel(max(level, logging.ERROR) if level > logging.DEBUG else level)
    delay = None if env.get("OTEL_BSP_SCHEDULE_DELAY") else _DELAY_MILLIS
    try:
        exporters = {name: _exporter(name) for name in _names(env)}
        export = OtlpExport(exporters, _resource(env, worker_id), _sampler(), delay)
    except TracesUnusable:
        raise
    except Exception as error:  # the variables choose whose code this is: an exporter's, a sampler's
        raise TracesUnusable(f"an OTEL_ variable cannot be followed: {type(error).__name__}: {error}") from error
    export.provide()
    return export


def _names(env: Mapping[str, str]) -> Sequence[str]:
    """The exporters' names as their packages register them."""
    protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    otlp = "otlp_proto_grpc" if protocol.strip().lower() == "grpc" else "otlp_proto_http"
    listed = [name.strip() for name in env.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return [otlp if name == "otlp" else name for name in listed if name]


def _exporter(name: str) -> SpanExporter:
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        known = ", ".join(sorted(entry_points(group="opentelemetry_traces_exporter").names))
        hint = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or " if name == "otlp_proto_grpc" else ""
        raise TracesUnusable(f"the exporter {name} is not installed: {hint}use otlp (http) or one of {known}")
    made: Any = next(iter(found)).load()()
    if not isinstance(made, SpanExporter):
        raise TracesUnusable(f"{name} is no exporter of spans")
    return made


def _resource(env: Mapping[str, str], worker_id: str) -> Resource:
    own = {SERVICE_NAME: "threadline-worker", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: worker_id}
    # What the variables say (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) comes first.
    said = {pair.partition("=")[0].strip() for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")}
    if env.get("OTEL_SERVICE_NAME"):
        said.add(SERVICE_NAME)
    return Resource.create({name: value for name, value in own.items() if name not in said})


def _sampler() -> Sampler:
    """As OTEL_TRACES_SAMPLER says; only a provider reads it."""
    return TracerProvider(shutdown_on_exit=False).sampler
