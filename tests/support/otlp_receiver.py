"""An OTLP/HTTP collector in this process: it parses what comes as the protocol's own messages, or never answers."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "Seen", "collecting"]


class Seen(NamedTuple):
    """A span as it arrived; ids in hex, no parent is ""."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    error: str | None
    links: list[tuple[str, str]]
    start: int
    end: int


class Collector(ThreadingHTTPServer):
    """`endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT; `hang` makes it take requests and never answer."""

    daemon_threads = True

    def __init__(self, *, hang: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hang = hang
        self.leaving = threading.Event()
        self.asked = threading.Event()
        self._spans: list[Seen] = []
        self._news = threading.Condition()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self, job_id: str | None = None) -> list[Seen]:
        """All so far; those in the trace of a job's spans."""
        with self._news:
            found = list(self._spans)
        traces = {span.trace_id for span in found if span.attributes.get("threadline.job_id") == job_id}
        return [span for span in found if job_id is None or span.trace_id in traces]

    def until(self, look: Callable[[list[Seen]], object], timeout: float = 20) -> list[Seen]:
        """Wait until what has arrived satisfies `look`."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not look(self._spans):
                assert self._news.wait(deadline - time.monotonic()), sorted(span.name for span in self._spans)
            return list(self._spans)

    def take(self, body: bytes) -> None:
        seen = list(_parsed(body))
        with self._news:
            self._spans += seen
            self._news.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Workers are killed in mid-request."""


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        if self.server.hang:
            self.server.leaving.wait(60)
        elif self.path == "/v1/traces":
            self.server.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output to itself."""


def _parsed(body: bytes) -> Iterator[Seen]:
    for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _read(batch.resource.attributes)
        for scope in batch.scope_spans:
            for span in scope.spans:
                yield Seen(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    _read(span.attributes),
                    resource,
                    span.status.message if span.status.code == 2 else None,
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )


def _read(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextlib.contextmanager
def collecting(*, hang: bool = False) -> Iterator[Collector]:
    """Serve while the block runs."""
    collector = Collector(hang=hang)
    thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.leaving.set()
        collector.shutdown()
        collector.server_close()
        thread.join()
