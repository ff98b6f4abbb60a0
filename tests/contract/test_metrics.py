"""What is exposed is contract.md's, metric by metric: name, type, labels, and the values of labels that are fixed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from threadline.metrics import jobs_enqueued
from threadline_worker.telemetry.metrics import Metrics, QueueGauges

#: The contract's words.
TEXT = """
Counters `threadline_jobs_enqueued_total{agent}` (by producers that expose it),
`threadline_jobs_finished_total{agent,state,code}`,
`threadline_job_claims_total{agent,kind="start|resume"}`,
`threadline_jobs_rescued_total{cause="dead_worker|lost_message"}`,
`threadline_lease_lost_total`, `threadline_events_published_total{type}`,
`threadline_tokens_total{agent,model,kind="input|output"}`, `threadline_supersteps_total{agent}`. Gauges
`threadline_jobs{state}` (from the ledger, queued, running, interrupted), `threadline_oldest_queued_seconds`,
`threadline_worker_jobs_running`, `threadline_worker_slots`, `threadline_workers`,
`threadline_pg_pool_connections{state}`.
Histograms `threadline_job_duration_seconds{agent,state}`, `threadline_job_wait_seconds{agent}`,
`threadline_pickup_seconds` (last beat of the dead worker to the new claim), `threadline_superstep_seconds{agent}`,
`threadline_checkpoint_write_seconds`, `threadline_publish_seconds`.
"""
#: Ours, beyond the contract: adding is free.
MORE = {
    "threadline_internal_jobs_total": {"operation", "state"},
    "threadline_messages_purged_total": {"reason"},
    "threadline_retention_rows_total": {"table"},
    "threadline_webhook_deliveries_total": {"result"},
    "threadline_backend_up": {"backend"},
    "threadline_worker_drain_seconds": set(),
    "threadline_webhook_backlog": set(),
    "threadline_queue_jobs": {"queue", "state"},
    "threadline_queue_oldest_seconds": {"queue"},
    "threadline_queue_workers": {"queue"},
}
#: A producer's, which a worker does not have.
ENQUEUED = "threadline_jobs_enqueued_total"


class Exposed(NamedTuple):
    """A metric as its registry has it, or as the contract names it."""

    name: str
    kind: str
    labels: frozenset[str]


def named() -> Iterator[Exposed]:
    kind = ""
    for word, name, labels in re.findall(r"(Counters|Gauges|Histograms)|`(threadline_\w+)(?:\{([^}]*)\})?`", TEXT):
        if word:
            kind = word.lower()[:-1]
        else:
            yield Exposed(name, kind, frozenset(re.findall(r"(\w+)(?==|,|$)", re.sub(r'"[^"]*"', "", labels))))


def exposed(*collectors: Any) -> Iterator[Exposed]:
    for collector in collectors:
        for family in collector.describe():
            # A metric names its labels nowhere in public before it has a sample.
            labels = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            yield Exposed(family.name + ("_total" if family.type == "counter" else ""), family.type, frozenset(labels))


def of_a_worker() -> list[Exposed]:
    metrics = Metrics(CollectorRegistry())
    return [*exposed(*(one for one in vars(metrics).values() if hasattr(one, "describe"))), *exposed(QueueGauges(dict))]


def test_a_worker_exposes_the_contracts_metrics_with_their_types_and_labels() -> None:
    contract = {one for one in named() if one.name != ENQUEUED}
    assert len(contract) == 19
    assert {one for one in of_a_worker() if one.name not in MORE} == contract


def test_what_a_worker_exposes_besides_is_known() -> None:
    contract = {one.name for one in named()}
    assert {one.name: set(one.labels) for one in of_a_worker() if one.name not in contract} == MORE


def test_a_producer_exposes_the_contracts_counter_and_a_worker_does_not() -> None:
    registry = CollectorRegistry()
    counted = jobs_enqueued(registry)
    [enqueued] = [one for one in named() if one.name == ENQUEUED]
    assert [*exposed(counted.counter)] == [enqueued]
    assert ENQUEUED not in {one.name for one in of_a_worker()}
