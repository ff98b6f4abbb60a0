"""What the ledger lets go: in order, never what is owed or in use; and one worker at a time makes the round."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from support.ledger import Bench, bench_on
from threadline import Client, ConfigurationError, InvalidJob, ThreadMovedOn
from threadline.calls.prune import Ages
from threadline.cli.app import run
from threadline.contract.age import parse_age
from threadline.contract.keys import Keys
from threadline.contract.user_names import UserNames
from threadline.ledger.database import Database
from threadline.ledger.retention import Retention
from threadline_worker.retention.schedule import Schedule
from threadline_worker.retention.settings import RetentionSettings
from threadline_worker.telemetry.metrics import Metrics

MONTH = 30 * 86_400.0


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with bench_on(database_url) as made:
        yield made


async def aged(bench: Bench, job_id: str) -> None:
    await bench.set(job_id, "finished_at = finished_at - interval '31 days'")
    await bench.sql("UPDATE threadline.threads SET created_at = now() - interval '31 days'")


async def ended(bench: Bench, state: str = "succeeded", **options: Any) -> str:
    """A job of long ago."""
    job_id: str = (await bench.enqueue(**options)).job_id
    await bench.end(job_id, state)
    await aged(bench, job_id)
    return job_id


async def left(bench: Bench) -> set[str]:
    return {row["job_id"] for row in await bench.sql("SELECT job_id FROM threadline.jobs")}


async def test_L7_what_can_be_retried_never_outlives_what_moved_on(bench: Bench) -> None:
    failed = (await bench.enqueue(thread_id="t")).job_id
    await bench.end(failed, "failed")
    later = await ended(bench, thread_id="t")
    assert await Retention(bench.ledger).prune_jobs(MONTH) == 0
    with pytest.raises(ThreadMovedOn):
        await bench.ledger.retry(failed)
    await aged(bench, failed)
    assert await Retention(bench.ledger).prune_jobs(MONTH) == 2
    assert await left(bench) == set()
    [thread] = await bench.sql("SELECT agent, active_at FROM threadline.threads")
    assert thread["agent"] == "steps"
    assert thread["active_at"] is not None
    assert later != failed


async def test_nothing_that_is_young_open_waiting_or_owed_goes(bench: Bench) -> None:
    young = (await bench.enqueue(thread_id="young")).job_id
    await bench.end(young, "succeeded")
    queued = (await bench.enqueue(thread_id="queued")).job_id
    running = (await bench.started(thread_id="running")).job_id
    waiting = await ended(bench, "interrupted", thread_id="waiting")
    owed = await ended(bench, thread_id="owed", webhook_url="https://example.org/hook")
    gone = await ended(bench, thread_id="gone")
    keep = {young, queued, running, waiting, owed}
    retention = Retention(bench.ledger)
    assert await retention.prune_jobs(MONTH) == 1
    assert await left(bench) == keep
    assert await retention.prune_threads(MONTH, waiting=False) == 1  # that of the job which is gone
    assert await left(bench) == keep
    await bench.sql("UPDATE threadline.webhooks SET state = 'delivered'")
    assert await retention.prune_jobs(MONTH) == 1
    assert await retention.prune_threads(MONTH, waiting=True) == 2
    assert await left(bench) == {young, queued, running}
    assert gone not in keep


async def test_a_graph_that_no_job_is_of_goes_and_is_described_again_by_whoever_runs_it(bench: Bench) -> None:
    async def known() -> set[str]:
        return {row["fingerprint"] for row in await bench.sql("SELECT fingerprint FROM threadline.graphs")}

    retention = Retention(bench.ledger)
    claim = await bench.started(thread_id="t")
    for word in ("a", "b"):  # the job goes on in b
        await bench.ledger.note_checkpoint(claim, None, fingerprint=word, structure={"nodes": {}})
    await bench.sql("UPDATE threadline.graphs SET first_seen = now() - interval '31 days'")
    assert await retention.prune_graphs(MONTH) == 0  # two are no load
    assert await retention.prune_graphs(MONTH, most=1) == 1
    assert await known() == {"b"}
    await bench.ledger.note_checkpoint(claim, None, fingerprint="a", structure={"nodes": {}})
    assert await known() == {"a", "b"}
    assert await bench.ledger.graph("a") == {"nodes": {}}
    assert await retention.prune_graphs(MONTH, most=1) == 1  # a is young
    assert await known() == {"a"}


async def test_more_jobs_than_a_batch_all_go(bench: Bench) -> None:
    for number in range(30):
        await ended(bench, thread_id=f"t{number % 7}")
    import threadline.ledger.retention as module

    whole, module._BATCH = module._BATCH, 4  # type: ignore[misc]  # a smaller batch shows what a batch does
    try:
        assert await Retention(bench.ledger).prune_jobs(MONTH) == 30
        assert await Retention(bench.ledger).prune_threads(MONTH, waiting=False) == 7
    finally:
        module._BATCH = whole  # type: ignore[misc]  # as it was


async def test_an_enqueue_under_way_keeps_its_thread(bench: Bench) -> None:
    await ended(bench, thread_id="t")
    async with bench.ledger.database.connection() as own, own.transaction():
        job = await bench.enqueue(thread_id="t", connection=own)
        assert await Retention(bench.ledger).prune_threads(MONTH, waiting=False) == 0
    assert job.job_id in await left(bench)


async def test_a_retry_under_way_keeps_its_job(bench: Bench) -> None:
    failed = await ended(bench, "failed", thread_id="t")
    async with bench.ledger.database.connection() as own, own.transaction():
        await own.execute(bench.ledger.queries["retry"], {"job_id": failed})
        retention = Retention(bench.ledger)
        assert await retention.prune_jobs(MONTH) == 0
        assert await retention.prune_threads(MONTH, waiting=False) == 0
    assert (await bench.row(failed))["state"] == "queued"


async def test_one_worker_at_a_time_makes_the_round(bench: Bench, database_url: str) -> None:
    await ended(bench, thread_id="t")
    settings = RetentionSettings.from_env({"THREADLINE_RETENTION_JOBS": "30d", "THREADLINE_RETENTION_SECONDS": "60"})
    metrics = Metrics(CollectorRegistry())
    async with Database(database_url, application_name="tests") as direct:
        one, other = (
            Schedule(bench.ledger, None, direct, settings, keys=Keys(), names=UserNames(), metrics=metrics)
            for _ in range(2)
        )
        async with one._alone() as alone:
            assert alone
            assert await other.round() is None
        pruned = await other.round()
        assert pruned is not None
        assert pruned.jobs == 1
    assert metrics.registry.get_sample_value("threadline_retention_rows_total", {"table": "jobs"}) == 1


async def test_a_schedule_that_is_cut_off_begins_again(bench: Bench, database_url: str) -> None:
    settings = RetentionSettings.from_env({"THREADLINE_RETENTION_SECONDS": "0.05"})
    async with Database(database_url, application_name="retention") as direct:
        metrics = Metrics(CollectorRegistry())
        schedule = Schedule(bench.ledger, None, direct, settings, keys=Keys(), names=UserNames(), metrics=metrics)
        task = asyncio.create_task(schedule.run())
        for _ in range(5):
            await bench.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'retention'"
            )
            await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_command_counts_what_went(
    bench: Bench, database_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await ended(bench, thread_id="t")
    monkeypatch.setenv("DATABASE_URL", database_url)

    def threadline(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as stopped:
            run(["prune", *arguments])
        return stopped.value.code, *capfd.readouterr()

    code, out, _ = await asyncio.to_thread(threadline, "--jobs", "30d", "--json")
    assert (code, json.loads(out)["jobs"]) == (0, 1)
    code, out, _ = await asyncio.to_thread(threadline, "--threads", "1d")
    assert (code, out.splitlines()[1]) == (0, "1 threads, 0 jobs and 0 dead letters deleted")
    code, _, err = await asyncio.to_thread(threadline, "--older-than", "soon")
    assert code == 2
    assert "give a number and a unit" in err


async def test_wrong_arguments_are_said(database_url: str) -> None:
    async with Client(database_url=database_url) as client:
        with pytest.raises(InvalidJob, match="keep='nothing': `latest` is all that can be kept"):
            await client.prune(older_than=1, keep="nothing")
        for age in (-1, float("nan"), True, 1e12):
            with pytest.raises(InvalidJob, match="age"):
                await client.prune(jobs=age)
    for text in ("30", "d", "30 d", "1y", "-1d", "١d", "1e3d"):
        with pytest.raises(InvalidJob, match="give a number and a unit"):
            parse_age(text)
    assert (parse_age("1.5h"), parse_age(" 2w ")) == (5400.0, 14 * 86_400.0)
    with pytest.raises(ConfigurationError, match="THREADLINE_RETENTION_JOBS: age '30'"):
        RetentionSettings.from_env({"THREADLINE_RETENTION_JOBS": "30"})
    assert RetentionSettings.from_env({}).ages == Ages()
