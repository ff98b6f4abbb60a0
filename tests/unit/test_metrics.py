"""Series are bounded whatever others write, and the ledger is asked once an interval whoever scrapes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

import threadline
from threadline import testing
from threadline.contract.states import Code
from threadline.errors import BackendUnavailable, ConfigurationError, JobInterrupted, ThreadBusy
from threadline.metrics import Capped, jobs_enqueued
from threadline_worker.telemetry.exposure import ledger_from
from threadline_worker.telemetry.metrics import Metrics, QueueGauges

SEEN = {"queued": 3, "running": 1, "interrupted": 0, "oldest_queued_seconds": 2.5, "workers": 2, "webhook_backlog": 4}


def test_the_ledger_is_asked_once_for_many_scrapes_and_its_absence_is_no_zero() -> None:
    asked = []

    def ask() -> dict[str, float]:
        asked.append(1)
        return SEEN

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


def test_queues_have_bounded_series_and_those_that_are_mapped_always_some() -> None:
    rows = [
        {"queue": f"q{n}", "queued": 2, "running": 1, "interrupted": 0, "oldest": float(n), "workers": 1}
        for n in range(60)
    ]
    registry = CollectorRegistry()
    registry.register(QueueGauges(lambda: {**SEEN, "queues": rows}, queues=["mapped"]))
    text = generate_latest(registry).decode()
    series = [line for line in text.splitlines() if line.startswith("threadline_queue_oldest_seconds{")]
    assert len(series) == 52  # `default`, 50 by name, `other`
    assert 'threadline_queue_jobs{queue="mapped",state="queued"} 0.0' in text
    assert 'threadline_queue_workers{queue="default"} 0.0' in text
    assert 'threadline_queue_jobs{queue="other",state="queued"} 22.0' in text
    assert 'threadline_queue_oldest_seconds{queue="other"} 59.0' in text


def test_of_many_scrapes_at_once_one_asks_and_nobody_waits_for_it() -> None:
    answering, asked = threading.Event(), []

    def ask() -> dict[str, float]:
        asked.append(1)
        if len(asked) == 2:
            assert answering.wait(10)
        return {**SEEN, "queued": len(asked)}

    registry = CollectorRegistry()
    registry.register(QueueGauges(ask, interval=0))
    generate_latest(registry)
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(generate_latest, registry)
        while len(asked) < 2:
            pass
        for _ in range(20):  # each of them would ask, and wait
            assert b'threadline_jobs{state="queued"} 1.0' in generate_latest(registry)
        answering.set()
        assert b'threadline_jobs{state="queued"} 2.0' in slow.result()
    assert len(asked) == 2


def test_a_question_that_fails_does_not_end_the_asking() -> None:
    answers = iter([ZeroDivisionError(), SEEN])

    def ask() -> dict[str, float]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    gauges = QueueGauges(ask, interval=0)
    with pytest.raises(ZeroDivisionError):
        list(gauges.collect())
    assert next(family.samples for family in gauges.collect())


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


def test_ten_thousand_strange_names_make_a_bounded_number_of_series() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, ["research"])
    before = series(registry)
    for n in range(10_000):
        agent, code = f"strange-{n}", f"code-{n}"
        metrics.job_claims.labels(agent=agent, kind="start").inc()
        metrics.job_wait.labels(agent=agent).observe(1)
        metrics.jobs_finished.labels(agent=agent, state="failed", code=code).inc()
        metrics.job_duration.labels(agent=agent, state="failed").observe(1)
        metrics.tokens.labels(agent=agent, model=f"model-{n}", kind="input").inc()
        metrics.events_published.labels(type=f"type-{n}").inc()
    assert series(registry) - before < 1_500
    metrics.jobs_finished.labels(agent="research", state="failed", code=Code.POISONED).inc()
    text = generate_latest(registry).decode()
    assert 'threadline_jobs_finished_total{agent="research",code="poisoned",state="failed"} 1.0' in text
    assert 'threadline_job_claims_total{agent="strange-19",kind="start"} 1.0' in text
    assert 'threadline_job_claims_total{agent="other",kind="start"} 9980.0' in text


def test_a_label_has_its_known_values_then_room_then_other_whoever_asks_at_once() -> None:
    capped = Capped(50, ["known"])
    with ThreadPoolExecutor(8) as threads:
        given = set(threads.map(lambda n: capped(f"v{n % 500}"), range(5_000)))
    assert len(given) == 51
    assert "other" in given
    assert capped("known") == "known"


def test_clients_of_one_registry_share_one_counter_and_a_taken_name_is_said() -> None:
    registry = CollectorRegistry()
    jobs_enqueued(registry).count("a")
    jobs_enqueued(registry).count("a")
    for n in range(10_000):
        jobs_enqueued(registry).count(f"strange-{n}")
    assert registry.get_sample_value("threadline_jobs_enqueued_total", {"agent": "a"}) == 2
    assert registry.get_sample_value("threadline_jobs_enqueued_total", {"agent": "other"}) == 9_901
    assert series(registry) <= 2 * 101  # and the moment at which each was made, unless that is switched off
    taken = CollectorRegistry()
    Counter("threadline_jobs_enqueued_total", "Somebody else's.", registry=taken)
    with pytest.raises(ConfigurationError, match="threadline_jobs_enqueued"):
        jobs_enqueued(taken)


def test_without_prometheus_client_a_registry_is_refused_and_the_package_is_light(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import sys, threadline, threadline.sync; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'threadline\[metrics\]'"):
        threadline.Client(redis_url="redis://127.0.0.1:1", metrics=CollectorRegistry())


async def test_a_producer_counts_the_jobs_that_it_made_and_no_repeat() -> None:
    registry = CollectorRegistry()
    client = testing.Client.from_env(metrics=registry)
    client.script("asks", raises=JobInterrupted([{"id": "i", "value": 1}]))
    job = await client.enqueue("asks", {}, thread_id="t", idempotency_key="k")
    assert await client.enqueue("asks", {}, thread_id="t", idempotency_key="k")
    await client.resume(job.thread_id, value=True)
    with pytest.raises(ThreadBusy):
        await client.enqueue("asks", {}, thread_id="t", on_busy="reject")
    assert registry.get_sample_value("threadline_jobs_enqueued_total", {"agent": "asks"}) == 2
    blocking = testing.SyncClient.from_env(metrics=registry)
    blocking.enqueue("asks", {})
    blocking.close()
    assert registry.get_sample_value("threadline_jobs_enqueued_total", {"agent": "asks"}) == 3


@pytest.mark.parametrize("error", [BackendUnavailable("away"), psycopg.DataError("odd"), asyncio.CancelledError()])
async def test_what_the_ledger_refuses_hides_no_other_figures(error: BaseException) -> None:
    async def gauges() -> dict[str, float]:
        raise error

    services: Any = SimpleNamespace(ledger=SimpleNamespace(gauges=gauges))
    assert await asyncio.to_thread(ledger_from(services, asyncio.get_running_loop())) == {}


async def test_a_slow_ledger_is_not_waited_for_and_its_questions_do_not_pile_up() -> None:
    ended = []

    async def gauges() -> dict[str, float]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
        return SEEN

    services: Any = SimpleNamespace(ledger=SimpleNamespace(gauges=gauges))
    ask = ledger_from(services, asyncio.get_running_loop(), limit=0.01)
    assert await asyncio.to_thread(ask) == {}
    assert await asyncio.to_thread(ask) == {}
    while len(ended) < 2:
        await asyncio.sleep(0)
