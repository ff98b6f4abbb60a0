"""The benchmarks' own parts: what they calculate, the switch for publishing, and the page that explains them."""

from __future__ import annotations

import random
import re
from unittest.mock import create_autospec

import pytest
from prometheus_client import CollectorRegistry

from bench import unpublished
from bench.__main__ import _BENCHMARKS
from bench.figures import milliseconds, paired
from support.markdown import ROOT
from threadline.log.append import Appended, EventLog, Verdict
from threadline_worker.execution import Execution
from threadline_worker.publisher import Publisher
from threadline_worker.telemetry.metrics import Metrics


def test_the_interval_has_the_true_median_in_it_as_often_as_it_says() -> None:
    chance = random.Random(7)
    within = 0
    for _ in range(400):
        low, high = paired([chance.lognormvariate(0, 1) for _ in range(40)])["ci95"]
        within += low <= 1.0 <= high
    assert 0.93 * 400 <= within < 400


def test_an_interval_is_no_wider_than_what_was_found() -> None:
    assert paired([2.0, 1.0]) == {"n": 2, "median": 1.5, "ci95": [1.0, 2.0]}
    assert milliseconds([0.25]) == {"n": 1, "p50": 250.0, "p99": 250.0, "max": 250.0}


@pytest.mark.parametrize(("thread", "calls"), [("unpublished-1", 0), ("t", 1)])
async def test_the_switch_drops_what_the_jobs_of_its_threads_publish(
    monkeypatch: pytest.MonkeyPatch, thread: str, calls: int
) -> None:
    monkeypatch.setattr(Publisher, "offer", Publisher.offer)  # put back at the end
    monkeypatch.setattr(Execution, "_announce_claim", Execution._announce_claim)
    unpublished.install()
    log = create_autospec(EventLog, instance=True)
    log.append.return_value = Appended(None, [Verdict.APPENDED])
    metrics = Metrics(CollectorRegistry())
    async with Publisher(
        log, "j", thread, 1, metrics=metrics, may_publish=lambda: True, on_stale=lambda: None
    ) as publisher:
        publisher.offer("updates", (), {"step": 1})
        assert await publisher.flush()
    assert log.append.await_count == calls


def test_each_benchmark_has_its_section_and_its_figures() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## `(\w+)`", page, re.MULTILINE)) == sorted(_BENCHMARKS)
    assert all((ROOT / "tests" / "bench" / f"{name}.py").exists() for name in _BENCHMARKS)
