"""A job takes along the trace of whoever enqueues it; without OpenTelemetry in the program nothing is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from threadline import __version__
from threadline.contract.traceparent import traceparent_of

__all__ = ["Enqueueing", "enqueueing"]

#: A program that has not imported it has neither a span nor a tracer provider.
_API: Final = "opentelemetry.trace"


class Enqueueing:
    """One enqueue. `traceparent` is what the job takes along (None: it begins a trace of its own)."""

    def __init__(self, traceparent: str | None, span: Any = None) -> None:
        self.traceparent = traceparent
        self._span = span

    def made(self, job_id: str, thread_id: str) -> None:
        """The job that the caller gets: with an idempotency key perhaps an earlier one."""
        if self._span is not None:
            self._span.set_attribute("messaging.message.id", job_id)
            self._span.set_attribute("messaging.message.conversation_id", thread_id)


@contextmanager
def enqueueing(agent: str, queue: str, traceparent: str | None) -> Iterator[Enqueueing]:
    """A span `enqueue {agent}` around the block, below the current one, if the program has set up OpenTelemetry.

    A `traceparent` that is given counts instead, as it is. Otherwise it is the new span's; without a tracer provider
    that of the context, if any.
    """
    api = sys.modules.get(_API)
    if traceparent is not None or api is None:
        yield Enqueueing(traceparent)
        return
    tracer = api.get_tracer("threadline", __version__)
    with tracer.start_as_current_span(
        f"enqueue {agent}",
        kind=api.SpanKind.PRODUCER,
        attributes=_attributes(agent, queue),
        # An error's words may be a user's: its type is told.
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield Enqueueing(_traceparent(span.get_span_context()), span)
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(api.StatusCode.ERROR)
            raise


def _attributes(agent: str, queue: str) -> dict[str, str]:
    return {
        "messaging.system": "threadline",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.destination.name": queue,
        "threadline.agent": agent,
    }


def _traceparent(context: Any) -> str | None:
    if not context.is_valid:
        return None
    return traceparent_of(context.trace_id, context.span_id, is_sampled=context.trace_flags.sampled)
