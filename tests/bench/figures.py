"""Figures of the benchmarks: percentiles and ratios with their uncertainty, one JSON line each."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["milliseconds", "paired", "say", "seconds"]

#: 95 % of a normal distribution are within so many deviations.
_DEVIATIONS: Final = 1.96


def seconds(values: Sequence[float]) -> dict[str, float | int]:
    """n, p50, p95 and the most, in seconds."""
    cuts = _percentiles(values)
    return {"n": len(values), "p50": round(cuts[49], 3), "p95": round(cuts[94], 3), "max": round(max(values), 3)}


def milliseconds(values: Sequence[float]) -> dict[str, float | int]:
    """n, p50, p99 and the most, of seconds, in milliseconds."""
    cuts = _percentiles(values)
    most = round(max(values) * 1000, 1)
    return {"n": len(values), "p50": round(cuts[49] * 1000, 1), "p99": round(cuts[98] * 1000, 1), "max": most}


def paired(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """The median of what pairs gave (ratios, differences), and between which of them the true one is (95 %).

    By order alone, whatever the distribution: so many of n values are on either side of the true median.
    """
    ordered, n = sorted(values), len(values)
    low = max(math.floor((n - _DEVIATIONS * math.sqrt(n)) / 2) - 1, 0)
    ends = [round(ordered[low], digits), round(ordered[n - 1 - low], digits)]
    return {"n": n, "median": round(statistics.median(ordered), digits), "ci95": ends}


def say(bench: str, **figures: Any) -> None:
    """One line for who collects them."""
    print(json.dumps({"bench": bench, **figures}), flush=True)  # noqa: T201 - its output


def _percentiles(values: Sequence[float]) -> list[float]:
    return statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [*values] * 99
