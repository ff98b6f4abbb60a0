"""A worker's logs and metrics: registered names, the contract's figures, and no secret anywhere."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.gates import Gates, until
from threadline import JobFailed
from threadline_worker.telemetry.log_events import LOG_EVENTS


async def test_what_a_worker_tells_of_a_day_of_work(client, workers, env) -> None:
    gates = Gates(env)
    worker = workers(THREADLINE_LOG_LEVEL="debug", THREADLINE_NONSENSE="x", THREADLINE_LEASES_SECONDS="3")
    good = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="good")
    assert await good.result(timeout=10)
    gates.fail("bad", "ValueError")
    bad = await client.enqueue("fails", {"done": [], "until": 1}, thread_id="bad")
    with pytest.raises(JobFailed):
        await bad.result(timeout=10)
    gates.close("running", 0)
    running = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="running")
    await gates.begun("running", 0)
    figures = await until(
        lambda: scraped(worker) if both_announced(scraped(worker)) else None, "the events are counted"
    )
    gates.open("running", 0)
    assert await running.result(timeout=10)
    assert worker.terminate() == 0

    assert figures["threadline_jobs_finished_total", "agent=steps,code=,state=succeeded"] == 1
    assert figures["threadline_jobs_finished_total", "agent=fails,code=error,state=failed"] == 1
    assert figures["threadline_job_claims_total", "agent=steps,kind=start"] == 2
    assert figures["threadline_supersteps_total", "agent=steps"] >= 3
    assert figures["threadline_worker_jobs_running", ""] == 1
    assert figures["threadline_worker_slots", ""] == 10
    assert figures["threadline_events_published_total", "type=updates"] == 3
    assert figures["threadline_job_wait_seconds_count", "agent=steps"] == 2
    assert figures["threadline_job_duration_seconds_count", "agent=steps,state=succeeded"] == 1
    assert figures["threadline_checkpoint_write_seconds_count", ""] >= 5
    assert figures["threadline_jobs", "state=interrupted"] == 0
    assert not [labels for _name, labels in figures if good.job_id in labels or "thread_id" in labels]

    text = "".join(worker.lines)
    for url in (env["REDIS_URL"], env["DATABASE_URL"]):
        password = urlsplit(url).password
        assert password
        assert password not in text
    # Not those of libraries, nor the command line's own line for people.
    ours = [entry for entry in worker.entries if "level" in entry and "logger" not in entry]
    assert {entry["event"] for entry in ours} <= set(LOG_EVENTS)
    problems = [entry["problem"] for entry in ours if "problem" in entry]
    assert any(
        "THREADLINE_LEASES_SECONDS is not known; did you mean THREADLINE_LEASE_SECONDS" in one for one in problems
    )
    of_the_job = [entry for entry in ours if entry.get("job_id") == bad.job_id]
    assert [entry["event"] for entry in of_the_job][-2:] == ["job.failed", "job.finished"]
    assert all(entry["worker_id"] == worker.worker_id for entry in ours)
    assert ours[-1]["event"] == "worker.stopped"


def scraped(worker) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(worker.metrics())
        for sample in family.samples
    }


def both_announced(figures: dict[tuple[str, str], float]) -> bool:
    kinds = ("failed", "succeeded")
    return all(figures.get(("threadline_events_published_total", f"type={kind}")) == 1 for kind in kinds)
