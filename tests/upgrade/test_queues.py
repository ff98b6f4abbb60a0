"""A worker of the release before serves the default queue alone, and is in nobody's way who serves another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.desk import LedgerView
from support.gates import until
from support.ledger import bench_on
from support.previous_release import PreviousWorker, previous_env
from threadline import Client

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "2"}
STEPS: dict[str, Any] = {"done": [], "until": 2}


async def test_a_worker_of_the_release_before_runs_nothing_of_a_named_queue(
    client: Client, env: dict[str, str], workers: Callable[..., Any], tmp_path: Path
) -> None:
    view = LedgerView(env["DATABASE_URL"])
    old = PreviousWorker(previous_env({**env, **QUICK}, tmp_path))
    try:
        await asyncio.to_thread(old.ready)
        job = await client.enqueue("steps", STEPS, queue="deep")
        async with bench_on(env["DATABASE_URL"], workers=()) as bench:
            # Its sweep sends the wake-up into the only queue that it knows, and it finds the job there itself.
            await bench.set(job.job_id, "dispatched_at = NULL")
        await until(lambda: view.job(job.job_id)["dispatch_n"] > 3, "it has tried to take the job some times")
        stands = view.job(job.job_id)
        assert (stands["state"], stands["epoch"], stands["started_at"]) == ("queued", 0, None)
        today = workers(**QUICK, THREADLINE_WORKER_QUEUES="deep")
        await job.result(timeout=30)
        assert view.job(job.job_id)["worker_id"] == today.worker_id
        usual = await client.enqueue("steps", STEPS)
        await usual.result(timeout=20)
        assert view.job(usual.job_id)["worker_id"] == old.worker_id
    finally:
        old.close()
