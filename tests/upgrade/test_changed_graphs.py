"""R2: a job whose node has gone fails and says so, waits for a worker that has it, and goes on where it stood."""

from __future__ import annotations

import pytest

from support.desk import LedgerView
from support.gates import Gates, until
from support.schema import event_errors, published
from support.workers import Workers
from threadline import JobFailed, JobInterrupted
from threadline.cli.doctor.check import Level
from threadline.cli.doctor.database import check_database
from threadline.settings import ClientSettings

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.2", "THREADLINE_LEASE_SECONDS": "3"}
SAID = {"said": [], "notes": ""}


def release(name: str, env: dict[str, str]) -> dict[str, str]:
    """A worker's environment that has `flow` as this release does."""
    agents = f"flow=support.release_graphs:{name},steps=support.graphs:steps"
    return {**env, **QUICK, "THREADLINE_AGENTS": agents}


@pytest.fixture
def workers(env):
    with Workers(env) as started:
        yield lambda name, *arguments: started.start(*arguments, **release(name, env))
    assert [error for event in published(env["REDIS_URL"]) for error in event_errors(event)] == []


async def stands_at_ask(client, thread: str = "t"):
    job = await client.enqueue("flow", SAID, thread_id=thread)
    with pytest.raises(JobInterrupted):
        await job.result(timeout=30)
    return job


async def test_R2_an_answer_to_a_node_that_is_gone_is_kept_until_the_node_is_back(
    client, workers, database_url
) -> None:
    old = workers("original")
    asking = await stands_at_ask(client)
    before = await asking.status()
    assert len(before.agent_fingerprint) == 16
    old.terminate()
    new = workers("gone")
    answer = await client.resume("t", "yes")
    with pytest.raises(JobFailed, match=r"no node ask, where the thread stands") as caught:
        await answer.result(timeout=30)
    assert caught.value.code == "graph_changed"
    now = new.logged("agent.loaded", has="fingerprint")["fingerprint"]
    assert before.agent_fingerprint in caught.value.message
    assert now in caught.value.message
    assert f"threadline retry {answer.job_id}" in caught.value.message

    with pytest.raises(JobFailed, match="as_node=") as caught:
        await client.update_state("t", {"said": ["by hand"]})
    assert caught.value.code == "graph_changed"
    await client.retry(answer.job_id)
    with pytest.raises(JobFailed):  # the same again: nothing was written
        await answer.result(timeout=30)
    new.terminate()

    workers("original")
    await client.retry(answer.job_id)
    assert (await answer.result(timeout=30))["said"] == ["first", "fail", "ask=yes", "last"]
    view = LedgerView(database_url)
    assert view.job(answer.job_id)["agent_fingerprint"] == before.agent_fingerprint
    assert {row["fingerprint"] for row in view.rows("SELECT * FROM graphs")} == {before.agent_fingerprint}


async def test_R2_while_two_releases_run_a_job_is_left_to_the_one_that_has_its_node(client, workers, env) -> None:
    gates = Gates(env)
    (gates._folder / "broken").touch()
    old = workers("original", "--concurrency", "1")
    job = await client.enqueue("flow", SAID, thread_id="t")
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=30)
    assert caught.value.code == "error"
    gates.close("s", 0)
    busy = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="s")
    await gates.begun("s", 0)
    (gates._folder / "broken").unlink()
    new = workers("gone")
    await client.retry(job.job_id)  # only the new worker has a slot
    released = new.logged("job.released")
    assert released["code"] == "graph_changed"
    assert (await job.status()).state == "queued"
    checks = await check_database(ClientSettings.from_env(env))
    [found] = [one for one in checks if one.name == "graph flow"]
    assert found.level == Level.WARN
    assert old.worker_id in found.seen
    assert new.worker_id in found.seen
    gates.open("s", 0)
    assert (await busy.result(timeout=20))["done"] == [0]
    with pytest.raises(JobInterrupted):
        await job.result(timeout=20)
    assert (await job.status()).worker_id == old.worker_id
    assert new.seen().count("job.released") == 1  # claimed once, and not again and again
    # With the last worker that has the graph the wait is over.
    answer = await client.resume("t", "yes")
    assert (await answer.result(timeout=20))["said"][-1] == "last"


async def test_R2_without_a_worker_that_has_the_graph_the_job_fails_and_a_graph_with_all_it_needs_goes_on(
    client, workers, database_url
) -> None:
    old = workers("original")
    asking = await stands_at_ask(client)
    old.kill()
    new = workers("compatible")
    answer = await client.resume("t", "yes")
    assert (await answer.result(timeout=30))["said"] == ["first", "fail", "ask=yes", "last"]
    changed = new.logged("agent.changed")
    assert changed["before"] == (await asking.status()).agent_fingerprint
    status = await answer.status()
    assert (changed["fingerprint"], changed["job_id"]) == (status.agent_fingerprint, answer.job_id)
    [registered] = LedgerView(database_url).rows("SELECT agents FROM workers WHERE worker_id = %s", new.worker_id)
    assert registered["agents"]["flow"] == {"text_input": False, "fingerprint": status.agent_fingerprint}
    assert await until(lambda: new.seen().count("agent.changed") == 1, "said once")
