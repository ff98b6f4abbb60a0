"""The names and labels are contract.md's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from threadline_worker.telemetry.metrics import Metrics, QueueGauges

CONTRACT = {
    "threadline_jobs_finished_total": {"agent", "state", "code"},
    "threadline_job_claims_total": {"agent", "kind"},
    "threadline_jobs_rescued_total": {"cause"},
    "threadline_lease_lost_total": set(),
    "threadline_events_published_total": {"type"},
    "threadline_tokens_total": {"agent", "model", "kind"},
    "threadline_supersteps_total": {"agent"},
    "threadline_jobs": {"state"},
    "threadline_oldest_queued_seconds": set(),
    "threadline_worker_jobs_running": set(),
    "threadline_worker_slots": set(),
    "threadline_workers": set(),
    "threadline_pg_pool_connections": {"state"},
    "threadline_job_duration_seconds": {"agent", "state"},
    "threadline_job_wait_seconds": {"agent"},
    "threadline_pickup_seconds": set(),
    "threadline_superstep_seconds": {"agent"},
    "threadline_checkpoint_write_seconds": set(),
    "threadline_publish_seconds": set(),
}
#: Ours, beyond the contract.
MORE = {
    "threadline_internal_jobs_total": {"operation", "state"},
    "threadline_messages_purged_total": {"reason"},
    "threadline_retention_rows_total": {"table"},
    "threadline_webhook_deliveries_total": {"result"},
    "threadline_backend_up": {"backend"},
    "threadline_worker_drain_seconds": set(),
    "threadline_webhook_backlog": set(),
}


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Metrics(made)
    made.register(QueueGauges(dict))
    return made


def test_the_names_are_the_contracts() -> None:
    found = set()
    for family in registry().collect():
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert found == set(CONTRACT) | set(MORE)


def test_the_labels_are_the_contracts() -> None:
    metrics = Metrics(CollectorRegistry())
    labels = {
        (f"{metric._name}_total" if metric._type == "counter" else metric._name): set(metric._labelnames)
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
    }
    expected = {**CONTRACT, **MORE}
    assert labels == {name: expected[name] for name in labels}
    assert len(labels) == len(CONTRACT) + len(MORE) - 4  # four are the ledger's


def test_the_ledger_is_asked_once_for_many_scrapes_and_its_absence_is_no_zero() -> None:
    asked = []

    def ask() -> dict[str, float]:
        asked.append(1)
        seen = {"queued": 3, "running": 1, "interrupted": 0, "oldest_queued_seconds": 2.5, "workers": 2}
        return {**seen, "webhook_backlog": 4}

    full = CollectorRegistry()
    full.register(QueueGauges(ask))
    text = generate_latest(full).decode()
    generate_latest(full)
    assert 'threadline_jobs{state="queued"} 3.0' in text
    assert "threadline_webhook_backlog 4.0" in text
    assert asked == [1]
    away = CollectorRegistry()
    away.register(QueueGauges(dict))
    assert "threadline_workers " not in generate_latest(away).decode().replace(
        "# HELP threadline_workers ", ""
    ).replace("# TYPE threadline_workers ", "")
