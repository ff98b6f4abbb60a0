"""LangSmith's variables work in a worker as anywhere; what it has not heard at a drain is sent within a limit."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from langsmith import Client, run_trees

from support.desk import LedgerView
from support.gates import until
from support.langsmith_receiver import langsmith
from threadline_worker.telemetry.trace_langsmith import flush_langsmith


async def test_a_workers_runs_reach_langsmith_with_job_and_thread_and_a_drain_sends_the_rest(
    client, workers, database_url
) -> None:
    view = LedgerView(database_url)
    with langsmith() as receiver:
        receiver.open.clear()
        worker = workers(**receiver.env)
        job = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="t")
        await job.result(timeout=20)
        worker.signal(signal.SIGTERM)
        await until(lambda: view.rows("SELECT count(*) AS left FROM workers")[0]["left"] == 0, "it has signed off")
        receiver.open.set()  # all that is left to do is to send the runs
        assert worker.process.wait(20) == 0

        def whole(runs: dict[str, dict[str, Any]]) -> bool:
            steps = [run for run in runs.values() if run.get("name") == "step"]
            return len(steps) == 2 and all("end_time" in run for run in [*steps, *_roots(runs)])

        runs = receiver.until(whole, timeout=0.1)  # all was there before the process ended
        [root] = _roots(runs)
        assert root["id"].replace("-", "") == job.job_id
        for run in runs.values():
            assert run["extra"]["metadata"]["job_id"] == job.job_id
            assert run["extra"]["metadata"]["thread_id"] == "t"


async def test_the_last_runs_are_waited_for_until_they_are_sent_and_no_longer_than_the_limit(monkeypatch) -> None:
    with langsmith() as receiver:
        receiver.open.clear()
        client = Client(api_url=receiver.env["LANGSMITH_ENDPOINT"], api_key="x")
        monkeypatch.setattr(run_trees, "_CLIENT", client)
        now = datetime.now(UTC)
        told = {"trace_id": str(uuid4()), "dotted_order": f"{now:%Y%m%dT%H%M%S%f}Z{uuid4()}"}
        client.create_run("a step", {}, "chain", id=told["trace_id"], start_time=now, **told)
        await flush_langsmith(0.05)
        assert receiver.runs == {}
        flushing = asyncio.create_task(flush_langsmith(20))
        assert not (await asyncio.wait({flushing}, timeout=0.05))[0]
        receiver.open.set()
        await flushing
        assert [run["name"] for run in receiver.runs.values()] == ["a step"]
        client.close()


@pytest.mark.parametrize("hang", [False, True], ids=["away", "silent"])
async def test_a_langsmith_that_is_away_or_silent_holds_neither_a_job_nor_the_worker(client, workers, hang) -> None:
    with langsmith(hang=hang) as receiver:
        if not hang:
            receiver.server_close()  # nobody listens at its port
        worker = workers(**receiver.env)
        job = await client.enqueue("steps", {"done": [], "until": 5}, thread_id="t")
        await job.result(timeout=20)
        # Its own threads would keep the process for minutes.
        assert worker.terminate(timeout=20) == 0


def _roots(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs.values() if run.get("parent_run_id") is None]
