"""V2, V3, F3, L7: whatever happens to a worker, its jobs go on elsewhere, and what it still does changes nothing."""

from __future__ import annotations

import signal
import time

import pytest

from support.desk import LedgerView
from support.gates import Gates, until

LEASE = {"THREADLINE_LEASE_SECONDS": "4"}
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}


async def older_than_the_lease(view: LedgerView, seconds: float) -> None:
    """V2: a free lock counts only for a rescuer whose session is older than the lease."""
    age = "SELECT min(clock_timestamp() - started_at) > make_interval(secs => %s) AS old FROM workers"
    await until(lambda: view.rows(age, seconds)[0]["old"], "all workers are older than the lease")


async def test_V2_kill_9_is_picked_up_within_three_seconds(client, workers, env, database_url, capsys) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    first, second = workers(**LEASE), workers(**LEASE)
    handles = {first.pid: first, second.pid: second}
    await older_than_the_lease(view, 4.5)
    gates.close("u", 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="u")
    victim = handles[(await gates.begun("u", 1)).pid]
    killed = time.monotonic()
    victim.kill()
    gates.open("u", 1)
    await gates.begun("u", 1, times=2)
    seconds = time.monotonic() - killed
    with capsys.disabled():
        print(f"\npick-up after kill -9: {seconds:.2f} s")  # noqa: T201 - a figure that people ask for
    assert seconds < 3
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("u") == [0, 1, 1, 2]
    survivor = next(handle for pid, handle in handles.items() if pid != victim.pid)
    dead = survivor.logged("worker.dead")
    assert (dead["dead_worker_id"], dead["by_lock"], dead["jobs"]) == (victim.worker_id, True, 1)
    assert survivor.logged("job.claimed", has="pickup_seconds")["pickup_seconds"] is not None
    row = view.job(job.job_id)
    assert (row["failures"], row["stalls"], row["state"]) == (0, 0, "succeeded")


async def test_V3_a_frozen_worker_is_taken_after_its_lease_and_its_return_changes_nothing(
    client, workers, env, database_url
) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    zombie = workers(**QUICK)
    gates.close("t", 2)
    job = await client.enqueue("steps", {"done": [], "until": 4}, thread_id="t")
    await gates.begun("t", 2)
    zombie.signal(signal.SIGSTOP)
    frozen = time.monotonic()
    heir = workers(**QUICK)
    gates.close("t", 3)
    gates.open("t", 2)
    await gates.begun("t", 3)
    assert time.monotonic() - frozen >= 1.5
    assert heir.logged("worker.dead")["by_lock"] is False  # its session, and so its lock, is alive
    before = view.dump()
    zombie.signal(signal.SIGCONT)
    await until(lambda: {"lease.lost", "worker.declared_dead"} <= set(zombie.seen()) or None, "it notices")
    assert view.dump() == before
    assert "threadline_lease_lost_total 1.0" in zombie.metrics()
    # It goes on with other work, as a worker that was never away.
    gates.open("t", 3)
    assert await job.result(timeout=10) == {"done": [0, 1, 2, 3], "until": 4}
    assert gates.steps("t") == [0, 1, 2, 2, 3]
    assert [event.type async for event in job.events()].count("gap") == 0
    heir.terminate()
    again = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="u")
    await again.result(timeout=10)
    assert (await gates.begun("u", 0)).pid == zombie.pid


async def test_L7_a_crash_with_progress_is_never_poison(client, workers, env, database_url) -> None:
    """As many crashes as the limit of stalls, each behind a new checkpoint: nothing is charged."""
    gates, view = Gates(env), LedgerView(database_url)
    job = await client.enqueue("steps", {"done": [], "until": 4}, thread_id="t")
    for step in range(1, 4):
        gates.close("t", step)
        worker = workers(**QUICK)
        await gates.begun("t", step)
        worker.kill()
        gates.open("t", step)
    last = workers(**QUICK)
    assert await job.result(timeout=20) == {"done": [0, 1, 2, 3], "until": 4}
    assert gates.steps("t") == [0, 1, 1, 2, 2, 3, 3]
    row = view.job(job.job_id)
    assert (row["failures"], row["stalls"]) == (0, 0)
    rescued = last.logged("job.rescued")
    assert rescued["stalls"] == 0
    assert (rescued["thread_id"], rescued["agent"], rescued["trace_id"]) == ("t", "steps", job.job_id)


async def test_L7_a_job_that_kills_its_worker_without_progress_is_poison_and_hurts_no_neighbour(
    client, workers, env, database_url
) -> None:
    """The neighbour stands in one long step, so that it makes no progress between the crashes either."""
    gates, view = Gates(env), LedgerView(database_url)
    agents = {"THREADLINE_AGENTS": "steps=support.graphs:steps,orders=support.orders:orders"}
    gates.order("poison", 1, "abort")
    gates.close("poison", 1)
    gates.close("n", 1)
    first = workers(**QUICK, **agents)
    poison = await client.enqueue("orders", {"done": [], "until": 2}, thread_id="poison")
    neighbour = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="n")
    await gates.begun("n", 1)
    await gates.begun("poison", 1)
    gates.open("poison", 1)  # from now on each worker dies as soon as it comes to the poisonous step
    first.process.wait(20)
    looks = 0

    def over(worker) -> bool:
        nonlocal looks
        one, other = view.job(poison.job_id), view.job(neighbour.job_id)
        # The poisonous job stands back while the other one under suspicion runs: let that one go on then.
        looks = looks + 1 if (one["state"], one["stalls"], other["state"]) == ("queued", 2, "running") else 0
        if looks == 50:
            gates.open("n", 1)
        return worker.process.poll() is not None or one["state"] == "failed"

    while view.job(poison.job_id)["state"] != "failed":
        worker = workers(**QUICK, **agents)
        await until(lambda w=worker: over(w) or None, "the worker has died, or the job is known as poison", limit=40)
        assert len(gates.effects("poison")) <= 6
    row = view.job(poison.job_id)
    assert (row["code"], row["stalls"]) == ("poisoned", 3)
    assert gates.steps("poison") == [0, 1, 1, 1, 1]  # once with progress, then three times without
    gates.open("n", 1, missing_ok=True)
    if worker.process.poll() is not None:
        workers(**QUICK, **agents)
    assert await neighbour.result(timeout=20) == {"done": [0, 1, 2], "until": 3}
    assert view.job(neighbour.job_id)["failures"] == 0
    assert (gates.steps("n").count(0), gates.steps("n").count(2)) == (1, 1)


@pytest.mark.parametrize("mode", ["kill", "cancelled"])
async def test_L8_a_cancel_outlives_the_worker(client, workers, env, database_url, mode) -> None:
    gates = Gates(env)
    worker = workers(**QUICK)
    gates.close("t", 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    worker.signal(signal.SIGSTOP)
    await job.cancel()
    worker.kill()
    if mode == "cancelled":
        await job.cancel()  # twice is once
    workers(**QUICK)
    view = LedgerView(database_url)
    row = await until(lambda: (r := view.job(job.job_id))["state"] != "running" and r, "the job has ended")
    assert (row["state"], row["code"]) == ("cancelled", "requested")
    assert gates.steps("t") == [0, 1]
    assert [event.type async for event in job.events()][-1] == "cancelled"
