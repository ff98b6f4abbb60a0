"""Real workers: every line of a job says which job, whoever logs it, and no job fills the disk."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import psycopg
import pytest

from support.talking_graphs import LINES
from support.workers import WorkerHandle
from threadline import JobFailed
from threadline.ledger.database import Database, refused
from threadline.redis_client import reason

FIELDS = {"event", "job_id", "thread_id", "agent", "epoch", "worker_id", "trace_id"}
AGENTS = ",".join(f"{name}=support.talking_graphs:{name}" for name in ("talks", "noisy", "fails_loudly"))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAID = "what a patient told me"


async def test_every_line_of_a_job_says_which_job(client: Any, workers: Any) -> None:
    worker = workers(THREADLINE_AGENTS=AGENTS, THREADLINE_LOG_LEVEL="debug", MY_API_KEY="a-key-of-mine")
    jobs = [
        await client.enqueue("talks", SAID, thread_id=f"thread-{number}", traceparent=TRACE if number else None)
        for number in range(3)
    ]
    bad = await client.enqueue("fails_loudly", SAID, thread_id="bad")
    await asyncio.gather(*(job.result(timeout=30) for job in jobs))
    with pytest.raises(JobFailed, match=SAID):
        await bad.result(timeout=30)
    assert worker.terminate() == 0

    for number, job in enumerate(jobs):
        lines = [e for e in worker.entries if e.get("job_id") == job.job_id and e.get("claimed", True)]
        assert {frozenset(FIELDS - set(line)) for line in lines} == {frozenset()}
        assert {(line["thread_id"], line["agent"], line["worker_id"], line["epoch"]) for line in lines} == {
            (f"thread-{number}", "talks", worker.worker_id, 1)
        }
        assert {line["trace_id"] for line in lines} == {job.job_id if not number else TRACE.split("-")[1]}
        # Twice each: by the agent and by its subagent. (langchain's line is shown without what was put into it.)
        said = Counter(line["event"].split(" of ")[0].split(":")[0] for line in lines)
        once_each = {"job.claimed": 1, "job.finished": 1}
        assert {name: said[name] for name in once_each} == once_each
        twice = ("sync tool", "async tool", "a task", "psycopg", "arq", "langchain, who does not say")
        assert {name: said[name] for name in twice} == dict.fromkeys(twice, 2)
        assert said["python.warning"] == 1  # Python shows the same warning of the same line once
        assert {line["logger"] for line in lines if line["event"].startswith("sync tool")} == {"my.agent"}
        assert {line["logger"] for line in lines if line["event"] == "async tool"} == {"my.structured.agent"}

    of_threads = [entry for entry in worker.entries if "of thread-" in str({**entry, "thread_id": ""})]
    assert len(of_threads) == 3 * 2 * 5
    assert all(f"of {entry['thread_id']} of" in str({**entry, "thread_id": ""}) for entry in of_threads)
    no_job = [entry for entry in worker.entries if entry.get("event", "").startswith(("worker.", "agent.", "beat."))]
    assert {"worker.ready", "agent.loaded", "worker.draining", "worker.stopped"} <= {line["event"] for line in no_job}
    assert not [line for line in no_job if FIELDS & set(line) - {"event", "agent", "worker_id"}]
    shows_how_it_failed(worker, bad.job_id)


def shows_how_it_failed(worker: WorkerHandle, job_id: str) -> None:
    text = "".join(worker.lines)
    assert SAID not in text
    assert "a-key-of-mine" not in text
    lines = {entry["event"]: entry for entry in worker.entries if entry.get("job_id") == job_id}
    (error,) = lines["job.failed"]["exception"]
    assert error["type"] == "ValueError"
    assert error["frames"][-1].endswith("in _fail")
    assert error["withheld"] == f"what it says: threadline status {job_id}"
    assert lines["job.finished"]["message"].endswith(" characters]")


async def test_what_postgres_quotes_of_a_row_is_not_passed_on(database_url: str) -> None:
    """Its DETAIL and CONTEXT would stand in `sweep.failed`, in /readyz and in the program's messages."""
    async with Database(database_url, application_name="quoting") as database:
        with pytest.raises(psycopg.Error) as caught:
            await database.rows("SELECT %(text)s::jsonb", {"text": '{"my": CANARY}'})
    assert "CANARY" in str(caught.value)
    assert str(refused(caught.value)) == "Postgres: invalid input syntax for type json"
    assert reason(caught.value) == "invalid input syntax for type json"


async def test_what_is_told_of_a_job_that_no_worker_runs_says_which_job(client: Any, workers: Any) -> None:
    job = await client.enqueue("talks", SAID, thread_id="late", expires=0.05, traceparent=TRACE)
    await asyncio.sleep(0.1)  # it expires: there is no signal for that before a worker looks
    worker = workers(THREADLINE_AGENTS=AGENTS, MY_API_KEY="k")
    finished = worker.logged("job.finished")
    assert (finished["job_id"], finished["thread_id"], finished["agent"]) == (job.job_id, "late", "talks")
    assert (finished["epoch"], finished["trace_id"], finished["code"]) == (1, TRACE.split("-")[1], "expired")
    assert not FIELDS - set(finished)


async def test_a_tool_that_logs_in_a_loop_neither_fills_the_disk_nor_takes_long(client: Any, workers: Any) -> None:
    worker = workers(THREADLINE_AGENTS=AGENTS, MY_API_KEY="k", THREADLINE_LOG_LINES_PER_JOB="500")
    began = time.monotonic()
    job = await client.enqueue("noisy", "go", thread_id="noisy")
    assert await job.result(timeout=60)
    seconds = time.monotonic() - began
    suppressed = worker.logged("log.suppressed")
    assert worker.terminate() == 0
    lines = [entry for entry in worker.entries if entry.get("job_id") == job.job_id]
    assert len([line for line in lines if line.get("logger") == "my.agent"]) == 500
    assert (suppressed["lines"], suppressed["job_id"]) == (LINES - 500, job.job_id)
    assert [line["event"] for line in lines if "logger" not in line] == [
        "job.claimed",
        "job.finished",
        "log.suppressed",
    ]
    assert sum(map(len, worker.lines)) < 500_000
    print(f"{seconds:.1f} s")  # noqa: T201 - a figure
    assert seconds < 30
