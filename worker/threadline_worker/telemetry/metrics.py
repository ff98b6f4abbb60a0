"""All metrics of a worker, in one file: prefix, base unit, bounded labels, an injected registry (contract.md).

No label has more values than it has room for, whatever producers and models write: the rest is `other`.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Self, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from threadline.contract.events import EventType
from threadline.contract.queues import DEFAULT_QUEUE
from threadline.contract.states import Code
from threadline.metrics import Capped

__all__ = ["Metrics", "QueueGauges"]

_STEP_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_JOB_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400)
_WAIT_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
_CALL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)

#: Values of a label besides those that are known beforehand. An agent may add codes of its own, a model has any name.
_ROOM: Final = 20
_MODELS: Final = 50
_QUEUES: Final = 50
#: Of the jobs that the ledger counts.
_STATES: Final = ("queued", "running", "interrupted")


class _Bounded:
    """A metric whose labels have bounded values; for prometheus-client's classes, whose `labels` it narrows."""

    bounds: Mapping[str, Capped]

    def labels(self, *labelvalues: object, **labelkwargs: object) -> Self:
        """The series of these values, or of what stands for them; by name, never by place."""
        bounded = {name: self.bounds[name](str(value)) for name, value in labelkwargs.items()}
        return super().labels(*labelvalues, **bounded)  # type: ignore[misc,no-any-return]  # of the class it is mixed into


class _Counter(_Bounded, Counter):
    """A Counter."""


class _Gauge(_Bounded, Gauge):
    """A Gauge."""


class _Histogram(_Bounded, Histogram):
    """A Histogram."""


M = TypeVar("M", bound=_Bounded)


class Metrics:
    """The names are contract.md's. `agents` are this worker's own, which always have series under their names."""

    def __init__(self, registry: CollectorRegistry, agents: Iterable[str] = ()) -> None:
        self.registry = registry
        # Of a label one for all metrics: an agent that is `other` in one of them is so in all.
        bounds: defaultdict[str, Capped] = defaultdict(lambda: Capped(_ROOM))
        bounds |= {"agent": Capped(_ROOM, agents), "code": Capped(_ROOM, ["", *Code])}
        bounds |= {"type": Capped(_ROOM, EventType), "model": Capped(_MODELS)}

        def bounded(metric: M, labels: tuple[str, ...]) -> M:
            metric.bounds = {name: bounds[name] for name in labels}
            return metric

        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series per series that nobody asked for

        def counter(name: str, text: str, *labels: str) -> _Counter:
            return bounded(_Counter(f"threadline_{name}", text, labels, registry=registry), labels)

        def gauge(name: str, text: str, *labels: str) -> _Gauge:
            return bounded(_Gauge(f"threadline_{name}", text, labels, registry=registry), labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Histogram:
            return bounded(_Histogram(f"threadline_{name}", text, labels, registry=registry, buckets=buckets), labels)

        self.jobs_finished = counter("jobs_finished_total", "Jobs that ended here.", "agent", "state", "code")
        self.job_claims = counter("job_claims_total", "Claims of this worker.", "agent", "kind")
        self.internal_jobs = counter(
            "internal_jobs_total", "Operations on threads that ended here.", "operation", "state"
        )
        self.jobs_rescued = counter("jobs_rescued_total", "Jobs given back to the queue by this worker.", "cause")
        self.lease_lost = counter("lease_lost_total", "Jobs that the ledger gave to somebody else.")
        self.events_published = counter("events_published_total", "Events in logs.", "type")
        self.tokens = counter("tokens_total", "Tokens as models report them.", "agent", "model", "kind")
        self.supersteps = counter("supersteps_total", "Committed super-steps of main graphs.", "agent")
        self.messages_purged = counter("messages_purged_total", "Messages that nothing could read.", "reason")
        self.retention_rows = counter("retention_rows_total", "Rows that retention deleted.", "table")
        self.webhook_deliveries = counter("webhook_deliveries_total", "Tries to deliver a webhook.", "result")
        self.worker_jobs_running = gauge("worker_jobs_running", "Jobs in this worker's hands.")
        self.worker_slots = gauge("worker_slots", "Jobs that this worker runs at once.")
        self.backend_up = gauge("backend_up", "1 if this server has answered this worker lately, else 0.", "backend")
        self.drain_seconds = gauge("worker_drain_seconds", "How long this worker has been draining; 0 if it is not.")
        self.pool_connections = gauge("pg_pool_connections", "Connections of this worker's pool.", "state")
        self.job_duration = histogram(
            "job_duration_seconds", "Running time, summed over pick-ups.", _JOB_SECONDS, "agent", "state"
        )
        self.job_wait = histogram("job_wait_seconds", "Enqueue to first claim.", _WAIT_SECONDS, "agent")
        self.pickup = histogram("pickup_seconds", "Last beat of a dead worker to the new claim.", _WAIT_SECONDS)
        self.superstep_seconds = histogram("superstep_seconds", "One super-step.", _STEP_SECONDS, "agent")
        self.checkpoint_write = histogram("checkpoint_write_seconds", "One fenced checkpoint.", _CALL_SECONDS)
        self.publish_seconds = histogram("publish_seconds", "One call that appends events.", _CALL_SECONDS)


class QueueGauges(Collector):
    """The gauges about the whole queue, asked from the ledger once per `interval` seconds whatever the scrapes.

    `ask` may block for a while: only the scrape that asks waits for it, others have the answer before that. Nothing
    (Postgres is away) makes the gauges absent, which is no zero. `queues` have series also while nothing is in them.
    """

    def __init__(
        self, ask: Callable[[], Mapping[str, Any]], *, interval: float = 5.0, queues: Iterable[str] = ()
    ) -> None:
        self._ask = ask
        self._queues = tuple(queues)
        self._queue = Capped(_QUEUES, [DEFAULT_QUEUE])
        self._interval = interval
        self._known: Mapping[str, Any] = {}
        self._asked = float("-inf")
        self._asking = threading.Lock()

    def describe(self) -> Iterator[Metric]:
        """The families without values: registering asks nothing."""
        yield from (*_families({}), *_by_queue({}))

    def collect(self) -> Iterator[Metric]:
        """The families with the ledger's last answer."""
        if self._asking.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._asking.release()
        known = self._known
        yield from (*_families(known), *_by_queue(self._summed(known) if known else {}))

    def _refresh(self) -> None:
        if time.monotonic() - self._asked >= self._interval:
            self._asked = time.monotonic()
            self._known = self._ask()

    def _summed(self, values: Mapping[str, Any]) -> dict[str, _Queue]:
        """The queues by their labels; what has none of its own is added up."""
        summed = {self._queue(name): _Queue() for name in (DEFAULT_QUEUE, *self._queues)}
        for row in values.get("queues", ()):
            label = self._queue(row["queue"])
            summed[label] = summed.get(label, _Queue()).plus(row)
        return summed


class _Queue(NamedTuple):
    """The figures of one series' queues."""

    queued: int = 0
    running: int = 0
    interrupted: int = 0
    oldest: float = 0.0
    workers: int = 0

    def plus(self, row: Mapping[str, Any]) -> _Queue:
        """With those of a queue (queue_gauges.sql)."""
        counts = {name: getattr(self, name) + int(row[name]) for name in (*_STATES, "workers")}
        return _Queue(**counts, oldest=max(self.oldest, float(row["oldest"])))


def _by_queue(queues: Mapping[str, _Queue]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("threadline_queue_jobs", "Jobs in the ledger, by queue.", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "threadline_queue_oldest_seconds", "How long the queue's oldest due job has waited.", labels=["queue"]
    )
    workers = GaugeMetricFamily("threadline_queue_workers", "Live workers that serve the queue.", labels=["queue"])
    for name, figures in queues.items():
        for state in _STATES:
            jobs.add_metric([name, state], getattr(figures, state))
        oldest.add_metric([name], figures.oldest)
        workers.add_metric([name], figures.workers)
    yield from (jobs, oldest, workers)


def _families(values: Mapping[str, Any]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("threadline_jobs", "Jobs in the ledger.", labels=["state"])
    oldest = GaugeMetricFamily("threadline_oldest_queued_seconds", "How long the oldest due job has waited.")
    workers = GaugeMetricFamily("threadline_workers", "Workers whose last beat is younger than the lease.")
    backlog = GaugeMetricFamily("threadline_webhook_backlog", "Webhooks that are not delivered yet, nor given up.")
    if values:
        for state in _STATES:
            jobs.add_metric([state], values[state])
        oldest.add_metric([], values["oldest_queued_seconds"])
        workers.add_metric([], values["workers"])
        backlog.add_metric([], values["webhook_backlog"])
    yield from (jobs, oldest, workers, backlog)
