"""Makes threadline.json from the worker's metric registry: what names a metric or label that is not there raises.

`python deploy/grafana/dashboard.py` writes it, `--check` only looks (exit code 1 if it differs).
"""

# ruff: noqa: INP001 - a script of its own, in no package

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from threadline_worker.telemetry.metrics import Metrics, QueueGauges

__all__ = ["ROWS", "Panel", "dashboard", "expressions", "registered"]

FILE = Path(__file__).resolve().parent / "threadline.json"

#: What every series may carry beside a metric's own labels: Prometheus' and a histogram's.
_GIVEN_LABELS = {"instance", "job", "pod", "le"}
_HISTOGRAM_SERIES = ("_bucket", "_sum", "_count")
_WORD = re.compile(r"threadline_\w+")
_SELECTOR = re.compile(r"(threadline_\w+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"by \(([^)]*)\)")


class Panel(NamedTuple):
    """A graph of `queries`, pairs of an expression and its legend; `unit` is Grafana's name of it."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    says: str = ""


def _rate(metric: str, *by: str, unit: str = "ops", title: str, says: str = "") -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or "all"
    grouped = f" by ({', '.join(by)})" if by else ""
    return Panel(title, unit, ((f"sum{grouped} (rate({metric}[$__rate_interval]))", legend),), says)


def _increase(metric: str, *by: str, title: str, matching: str = "") -> Panel:
    """How many there were. increase() does not see the event that a series begins with: a young one counts whole."""
    series = f"{metric}{matching}"
    young = f"({series} unless last_over_time({series}[$__rate_interval] offset $__rate_interval))"
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    query = f"sum by ({', '.join(by)}) ({young} or increase({series}[$__rate_interval]))"
    return Panel(title, "short", ((query, legend),))


def _quantiles(metric: str, title: str, says: str = "") -> Panel:
    queries = tuple(
        (f"histogram_quantile({part}, sum by (le) (rate({metric}_bucket[$__rate_interval])))", f"p{int(part * 100)}")
        for part in (0.5, 0.95, 0.99)
    )
    return Panel(title, "s", queries, says)


#: The gauges about the whole queue are the same on every worker: max, not sum.
ROWS: dict[str, tuple[Panel, ...]] = {
    "Is it well?": (
        Panel(
            "Workers", "short", (("max(threadline_workers)", "alive"), ("count(threadline_worker_slots)", "scraped"))
        ),
        Panel("Jobs", "short", (("max by (state) (threadline_jobs)", "{{state}}"),)),
        Panel("Oldest due job", "s", (("max(threadline_oldest_queued_seconds)", "waits"),)),
        Panel(
            "Servers", "short", (("min by (backend) (threadline_backend_up)", "{{backend}}"),), "1: every worker has it"
        ),
    ),
    "Queues": (
        Panel("Waiting", "short", (('max by (queue) (threadline_queue_jobs{state="queued"})', "{{queue}}"),)),
        Panel("Oldest due job by queue", "s", (("max by (queue) (threadline_queue_oldest_seconds)", "{{queue}}"),)),
        Panel(
            "Workers by queue",
            "short",
            (("max by (queue) (threadline_queue_workers)", "{{queue}}"),),
            "0: nobody serves it; a worker may serve several",
        ),
    ),
    "Jobs": (
        _rate("threadline_jobs_finished_total", "agent", "state", title="Ends"),
        _rate(
            "threadline_job_claims_total", "kind", title="Claims", says="`resume` is a pick-up, a retry or an answer"
        ),
        _quantiles("threadline_job_duration_seconds", "Running time"),
        _quantiles("threadline_job_wait_seconds", "Wait before the first claim"),
        Panel(
            "Slots",
            "short",
            (("sum(threadline_worker_slots)", "there"), ("sum(threadline_worker_jobs_running)", "taken")),
        ),
        _increase("threadline_jobs_finished_total", "agent", "code", title="Failed jobs", matching='{state="failed"}'),
    ),
    "What agents do": (
        _rate("threadline_supersteps_total", "agent", title="Super-steps"),
        _quantiles("threadline_superstep_seconds", "One super-step"),
        _rate("threadline_tokens_total", "model", "kind", title="Tokens a second", unit="short"),
        _rate("threadline_events_published_total", "type", title="Events"),
        _rate("threadline_internal_jobs_total", "operation", "state", title="Operations on threads"),
    ),
    "What it stands on": (
        _quantiles("threadline_checkpoint_write_seconds", "One checkpoint (Postgres)"),
        _quantiles("threadline_publish_seconds", "One append of events (Redis)"),
        Panel("Connections", "short", (("sum by (state) (threadline_pg_pool_connections)", "{{state}}"),)),
        Panel("Webhooks waiting", "short", (("max(threadline_webhook_backlog)", "all"),)),
        _rate("threadline_webhook_deliveries_total", "result", title="Webhook tries"),
        _rate("threadline_retention_rows_total", "table", title="Rows that retention deleted"),
    ),
    "Trouble": (
        _increase("threadline_jobs_rescued_total", "cause", title="Jobs taken over"),
        _quantiles("threadline_pickup_seconds", "Silence to new claim"),
        Panel("Leases lost", "short", (("sum(increase(threadline_lease_lost_total[$__rate_interval]))", "all"),)),
        Panel("Draining for", "s", (("max by (instance) (threadline_worker_drain_seconds)", "{{instance}}"),)),
        _increase("threadline_messages_purged_total", "reason", title="Messages removed"),
    ),
}


def registered() -> dict[str, set[str]]:
    """Every series of a worker with the labels that it may carry."""
    made = Metrics(CollectorRegistry())
    collectors: list[Any] = [value for value in vars(made).values() if hasattr(value, "describe")]
    found: dict[str, set[str]] = {}
    for collector in [*collectors, QueueGauges(dict)]:
        for family in collector.describe():
            labels = set(getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()))
            names = {
                "counter": (f"{family.name}_total",),
                "histogram": tuple(family.name + end for end in _HISTOGRAM_SERIES),
            }.get(family.type, (family.name,))
            found.update(dict.fromkeys(names, labels))
    return found


def check(expression: str, known: dict[str, set[str]]) -> None:
    """Raise ValueError that names the metric or label which no worker exposes."""
    named = set(_WORD.findall(expression))
    if unknown := named - set(known):
        raise ValueError(f"no worker exposes {', '.join(sorted(unknown))}: {expression}")
    allowed = set.union(_GIVEN_LABELS, *(known[name] for name in named))
    asked = {label for _, inside in _SELECTOR.findall(expression) for label in _LABEL.findall(inside)}
    asked |= {label.strip() for inside in _BY.findall(expression) for label in inside.split(",")}
    if unknown := asked - allowed:
        raise ValueError(f"no label {', '.join(sorted(unknown))}: {expression}")


def expressions() -> Iterator[tuple[Panel, str]]:
    """Each panel with each of its expressions."""
    for panels in ROWS.values():
        for panel in panels:
            for expression, _ in panel.queries:
                yield panel, expression


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it. Raises ValueError for an expression that the registry does not carry."""
    known = registered()
    for _, expression in expressions():
        check(expression, known)
    return {
        "uid": "threadline",
        "title": "Threadline",
        "tags": ["threadline"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_datasource()]},
        "panels": list(_panels()),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for title, panels in ROWS.items():
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": _at(0, y, 24, 1),
        }
        number, y = number + 1, y + 1
        for place, panel in enumerate(panels):
            yield _graph(number, panel, _at(place % 3 * 8, y + place // 3 * 8, 8, 8))
            number += 1
        y += (len(panels) + 2) // 3 * 8


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _graph(number: int, panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.says,
        "gridPos": at,
        "datasource": source,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": source, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def main() -> int:
    """The exit code."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{FILE.name} differs from dashboard.py: run `python deploy/grafana/dashboard.py`\n")
        return 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
