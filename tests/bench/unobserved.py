"""The graph of `bench.observability` in a worker whose metrics take and drop; the product has no such switch."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from bench.thirty import thirty
from threadline_worker.telemetry import metrics

__all__ = ["thirty"]


def _drop(*_args: Any, **_more: Any) -> None:
    """Nothing is counted."""


def _same(metric: Any, **_labels: Any) -> Any:
    return metric


# For the rest of this process.
metrics._Bounded.labels = _same  # type: ignore[method-assign]  # the switch
Counter.inc = Gauge.set = Histogram.observe = _drop  # type: ignore[method-assign]  # the same
