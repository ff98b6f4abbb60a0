"""L7, V5: what an agent does wrong costs its own job what it shall cost, and no other job anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.desk import LedgerView
from support.gates import Gates, until
from threadline import JobFailed

ORDERS = {"THREADLINE_AGENTS": "steps=support.graphs:steps,orders=support.orders:orders,chat=support.graphs:chat"}


async def failed(client, gates: Gates, order: str, thread: str) -> JobFailed:
    gates.order(thread, 1, order)
    job = await client.enqueue("orders", {"done": [], "until": 2}, thread_id=thread)
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=15)
    return caught.value


async def test_L7_lasting_errors_fail_at_once_with_code_message_and_node(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    text = await client.enqueue("orders", "a graph without messages", thread_id="text")  # nobody alive knows better
    worker = workers(**ORDERS)
    error = await failed(client, gates, "raise ValueError", "value")
    assert (error.code, error.message) == ("error", "ValueError: as ordered (node step)")
    assert (await failed(client, gates, "http 400", "h400")).code == "error"
    # What Postgres cannot store must not make the job run for ever.
    assert (await failed(client, gates, "nul", "nul")).code == "error"
    assert [len(gates.effects(thread)) for thread in ("value", "h400", "nul")] == [2, 2, 2]
    assert "CancelledError" in (await failed(client, gates, "cancelled", "cancelled")).message
    # What the graph refuses.
    with pytest.raises(JobFailed, match="has no `messages`") as caught:
        await text.result(timeout=10)
    assert caught.value.code == "invalid_input"
    assert view.rows("SELECT 1 FROM checkpoints WHERE thread_id = 'text'") == []
    # The running-time limit, summed over epochs, counts as the end.
    gates.order("late", 1, "sleep 60")
    job = await client.enqueue("orders", {"done": [], "until": 2}, thread_id="late", timeout=0.7)
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    assert caught.value.code == "timeout"
    # And the worker is as well as before.
    assert await (await client.enqueue("orders", {"done": [], "until": 2})).result(timeout=10)
    assert worker.process.poll() is None
    assert {row["failures"] for row in view.rows("SELECT failures FROM jobs")} == {0}


async def retried(view: LedgerView, job, failures: int, then: Callable[[], object] = lambda: None) -> dict:
    """The job is back in the queue with so many failures; its backoff is set back, so that no test waits for it."""
    row = await until(
        lambda: (r := view.job(job.job_id))["failures"] == failures and r["state"] == "queued" and r, "it is retried"
    )
    then()
    view.rows("UPDATE jobs SET run_at = now() WHERE job_id = %s", job.job_id)
    return row


@pytest.mark.parametrize("order", ["raise ConnectionError", "raise TimeoutError"])
async def test_L7_a_passing_error_is_tried_again_from_the_checkpoint(client, workers, env, database_url, order) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers(**ORDERS)
    gates.order("t", 1, order)
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    row = await retried(view, job, 1, then=lambda: gates.forget("t", 1))
    assert row["code"] == "transient"
    assert 1.5 <= (row["run_at"] - row["transition_at"]).total_seconds() <= 2.5
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 1, 2]


async def test_L7_the_third_passing_error_is_the_last(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers(**ORDERS)
    gates.order("t", 1, "http 503")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    await retried(view, job, 1)
    row = await retried(view, job, 2)
    assert 3 <= (row["run_at"] - row["transition_at"]).total_seconds() <= 5
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    assert (caught.value.code, caught.value.message) == ("transient", "ProviderError: HTTP 503 (node step)")
    assert gates.steps("t") == [0, 1, 1, 1]


async def test_L7_retry_after_is_honoured(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers(**ORDERS)
    gates.order("t", 0, "once http 429 50")
    job = await client.enqueue("orders", {"done": [], "until": 1}, thread_id="t")
    row = await retried(view, job, 1)
    assert 50 <= (row["run_at"] - row["transition_at"]).total_seconds() < 51
    assert await job.result(timeout=10) == {"done": [0], "until": 1}
    assert gates.steps("t") == [0, 0]


async def test_V5_a_step_without_progress_is_a_failure_of_the_job(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers(**ORDERS, THREADLINE_STEP_TIMEOUT_SECONDS="0.6")
    gates.order("t", 1, "once sleep 60")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    row = await retried(view, job, 1)
    assert row["code"] == "step_timeout"
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 1, 2]


async def test_V5_running_time_is_summed_over_pick_ups(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    first = workers(**ORDERS)
    gates.close("t", 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t", timeout=30)
    await gates.begun("t", 1)
    gates.close("t", 2)
    view.rows("UPDATE jobs SET claimed_at = claimed_at - interval '29 s' WHERE job_id = %s", job.job_id)
    first.process.terminate()
    gates.open("t", 1)
    assert first.process.wait(10) == 0
    assert 29 < view.job(job.job_id)["running_seconds"] < 30
    workers(**ORDERS)
    with pytest.raises(JobFailed) as caught:  # a second later, not 30
        await job.result(timeout=5)
    assert caught.value.code == "timeout"


async def test_unknown_and_broken_agents_fail_their_own_jobs_only(client, workers, env, tmp_path, database_url) -> None:
    (tmp_path / "broken.py").write_text("import this_module_is_missing\n")
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "no_graph.py").write_text("graph = 7\n")
    agents = ",".join(f"{name}={tmp_path / name}.py:graph" for name in ("broken", "quits", "no_graph"))
    # With no worker alive any agent is accepted.
    unknown = await client.enqueue("nobody", {"x": 1})
    worker = workers(THREADLINE_AGENTS=f"steps=support.graphs:steps,{agents}")
    with pytest.raises(JobFailed, match="'nobody' is not configured") as caught:
        await unknown.result(timeout=15)
    assert caught.value.code == "unknown_agent"
    for name, why in (("broken", "this_module_is_missing"), ("quits", "SystemExit"), ("no_graph", "is no graph")):
        job = await client.enqueue(name, {"x": 1})
        with pytest.raises(JobFailed, match=why) as caught:
            await job.result(timeout=10)
        assert caught.value.code == "agent_unavailable"
    assert await (await client.enqueue("steps", {"done": [], "until": 1})).result(timeout=10)
    assert worker.process.poll() is None
