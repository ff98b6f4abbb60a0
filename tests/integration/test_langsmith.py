"""LangSmith's variables work in a worker as anywhere; what it has not heard at a drain is sent within a limit."""

from __future__ import annotations

from typing import Any

import pytest

from support.langsmith_receiver import langsmith


async def test_a_workers_runs_reach_langsmith_with_job_and_thread_and_a_drain_sends_the_rest(client, workers) -> None:
    with langsmith() as receiver:
        worker = workers(**receiver.env)
        job = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="t")
        await job.result(timeout=20)
        assert worker.terminate() == 0

        def whole(runs: dict[str, dict[str, Any]]) -> bool:
            steps = [run for run in runs.values() if run.get("name") == "step"]
            return len(steps) == 2 and all("end_time" in run for run in [*steps, *_roots(runs)])

        runs = receiver.until(whole, timeout=0.1)  # all was there before the process ended
        [root] = _roots(runs)
        assert root["id"].replace("-", "") == job.job_id
        for run in runs.values():
            assert run["extra"]["metadata"]["job_id"] == job.job_id
            assert run["extra"]["metadata"]["thread_id"] == "t"


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
