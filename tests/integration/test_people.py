"""People in the loop, through the queue: asked, answered once, and continued, whoever dies in between."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import psycopg
import pytest

from support.desk import LedgerView
from support.ledger import bench_on
from support.nursery import called
from support.workers import Workers
from threadline import (
    Client,
    InvalidJob,
    JobCancelled,
    JobInterrupted,
    NotWaiting,
    ThreadMovedOn,
    ThreadOwnedByAnother,
    Waiting,
)
from threadline.cli.resume import _decided as decided
from threadline.contract.states import State

AGENTS = ",".join(f"{name}=support.people_graphs:{name}" for name in ("both", "nested", "paused"))
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.2", "THREADLINE_LEASE_SECONDS": "5"}
EMPTY = {"heard": []}


@pytest.fixture
def asking(env) -> dict[str, str]:
    return {**env, **QUICK, "THREADLINE_AGENTS": f"{env['THREADLINE_AGENTS']},{AGENTS}"}


@pytest.fixture
def worker(asking):
    with Workers(asking) as started:
        yield started.start()


async def asked(client: Client, agent: str, thread: str = "t", **options) -> list[dict]:
    job = await client.enqueue(agent, EMPTY, thread_id=thread, **options)
    with pytest.raises(JobInterrupted) as caught:
        await job.result(timeout=20)
    return caught.value.interrupts


async def test_an_answer_makes_one_job_that_goes_on(client: Client, worker) -> None:
    job = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="t", user_id="u", metadata={"n": 1})
    with pytest.raises(JobInterrupted):
        await job.result(timeout=20)
    waiting = (await client.inbox(user_id="u"))[0]
    assert (waiting.job_id, waiting.thread_id, waiting.agent) == (job.job_id, "t", "ask")
    assert [one["value"] for one in waiting.interrupts] == ["how many?"]
    assert await client.inbox(user_id="somebody else") == []
    with pytest.raises(ThreadOwnedByAnother):
        await client.resume("t", 7, user_id="somebody else")
    with pytest.raises(InvalidJob, match=waiting.interrupts[0]["id"]):
        await client.resume("t")
    later = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="t", user_id="u")

    resumed = await client.resume("t", 7, user_id="u", idempotency_key="k")
    assert resumed.job_id != job.job_id
    assert (await resumed.result(timeout=20))["done"] == [7]
    assert (await client.resume("t", 7, user_id="u", idempotency_key="k")).job_id == resumed.job_id
    with pytest.raises(InvalidJob, match="another request"):
        await client.resume("t", 8, user_id="u", idempotency_key="k")
    with pytest.raises(JobInterrupted):
        await later.result(timeout=20)  # it waited behind the answer, and asks for itself
    types = [event.type async for event in resumed.events()]
    assert types == ["queued", "started", "updates", "succeeded"]


async def test_of_fifty_equal_answers_at_once_one_counts(client: Client, worker) -> None:
    await asked(client, "nested")
    answers = await asyncio.gather(*(client.resume("t", "yes") for _ in range(50)), return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    assert {type(answer) for answer in answers if isinstance(answer, BaseException)} == {NotWaiting}


async def test_nothing_waits(client: Client) -> None:
    for thread in ("unknown", "t"):
        with pytest.raises(NotWaiting):
            await client.resume(thread, 1)
        await client.enqueue("ask", EMPTY, thread_id="t")
    for wrong in ({"value": 1, "values": {"x": 1}}, {"values": [1]}, {"value": {1, 2}}, {"values": {"": 1}}):
        with pytest.raises(InvalidJob):
            await client.resume("t", **wrong)


async def test_several_questions_are_answered_by_their_ids(client: Client, worker) -> None:
    interrupts = {one["value"]: one["id"] for one in await asked(client, "both")}
    with pytest.raises(InvalidJob, match=interrupts["l"]):
        await client.resume("t", "one for all")
    with pytest.raises(InvalidJob, match="has to name"):
        await client.resume("t", values={"0" * 32: 1})
    half = await client.resume("t", values={interrupts["r\0"]: "R"})
    with pytest.raises(JobInterrupted) as caught:
        await half.result(timeout=20)
    assert [one["value"] for one in caught.value.interrupts] == ["l"]
    rest = await client.resume("t", "L")
    assert sorted((await rest.result(timeout=20))["heard"]) == ["left: l=L", "right: r\0=R"]


async def nothing(**_filters) -> list[Waiting]:
    return []


async def test_a_breakpoint_takes_no_answer(client: Client, worker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked(client, "paused", interrupt_before=["two"]) == []
    assert (await client.inbox())[0].interrupts == []
    with pytest.raises(InvalidJob, match="breakpoint"):
        await client.resume("t", "yes")
    with monkeypatch.context() as patch:
        patch.setattr(client, "inbox", nothing)  # as it was a moment ago
        rejected = await decided(client, "t", None, approve=False, reason="no")
    with pytest.raises(InvalidJob):  # and not gone on past it
        await client.resume("t", **rejected)
    gone_on = await client.resume("t")
    assert (await gone_on.result(timeout=20))["heard"] == ["plain", "plain"]


async def test_a_wait_can_expire_and_frees_the_thread(client: Client, worker, database_url) -> None:
    job = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="t", wait_expires=3600)
    next_one = await client.enqueue("nested", EMPTY, thread_id="t")
    with pytest.raises(JobInterrupted):
        await job.result(timeout=20)
    waiting = (await client.inbox())[0]
    assert waiting.expires_at is not None
    assert 3590 < (waiting.expires_at - waiting.since).total_seconds() < 3610
    LedgerView(database_url).rows("UPDATE jobs SET wait_expires_at = now() WHERE job_id = %s", job.job_id)
    while (await job.status()).state == "interrupted":
        await asyncio.sleep(0.05)
    with pytest.raises(JobCancelled) as caught:
        await job.result()
    assert caught.value.code == "expired"
    with pytest.raises(JobInterrupted):
        await next_one.result(timeout=20)


async def test_an_answer_that_is_taken_back_leaves_the_question_open(client: Client, database_url, asking) -> None:
    with Workers(asking) as workers:
        worker = workers.start()
        await asked(client, "nested")
        assert worker.terminate() == 0
    taken_back = await client.resume("t", "no")
    await taken_back.cancel()
    with pytest.raises(JobCancelled):
        await taken_back.result(timeout=5)
    assert [one.thread_id for one in await client.inbox()] == ["t"]
    other = await client.resume("t", "yes")
    with pytest.raises(Exception, match="later job"):
        await client.retry(taken_back.job_id)
    await other.cancel()
    again = await client.retry(taken_back.job_id)
    assert again.job_id == taken_back.job_id
    assert await client.inbox() == []


async def test_L7_an_answer_is_not_given_again_while_its_question_is_being_withdrawn(
    client: Client, database_url, asking
) -> None:
    with Workers(asking) as workers:
        worker = workers.start()
        await asked(client, "nested")
        assert worker.terminate() == 0
    question = (await client.inbox())[0]
    answer = await client.resume("t", "no")
    await answer.cancel()
    async with await psycopg.AsyncConnection.connect(database_url) as withdrawing:
        await withdrawing.execute("SELECT threadline.cancel_job(%s, false)", (question.job_id,))
        retrying = asyncio.create_task(client.retry(answer.job_id))
        await asyncio.wait({retrying}, timeout=0.5)
        assert not retrying.done()
        await withdrawing.commit()
    with pytest.raises(ThreadMovedOn):
        await retrying


async def test_R2_an_answer_waits_for_a_worker_that_can_give_it(client: Client, database_url) -> None:
    """One of 0.1.0 gave answers twice; its refused claim leaves nothing behind."""
    async with bench_on(database_url) as bench:
        await bench.worker("old")
        await bench.sql("UPDATE threadline.workers SET operations = '{}'")
        await bench.worker("new")
        job = await client.enqueue("steps", EMPTY, thread_id="t")
        await bench.ledger.finish(await bench.claim(job.job_id, "old"), State.INTERRUPTED, interrupts=[{"id": "i"}])
        answer = await client.resume("t", "yes")
        assert await bench.ledger.claim(answer.job_id, "old") is None
        assert (await bench.row(answer.job_id))["epoch"] == 0
        claim = await bench.claim(answer.job_id, "new")
        await bench.ledger.release(claim, "drain")
        assert await bench.ledger.claim(answer.job_id, "old") is None
        assert (await bench.claim(answer.job_id, "new")).input == {"i": "yes"}


async def test_the_command_line_lists_and_answers(client: Client, asking, worker) -> None:
    def threadline(*arguments: str) -> subprocess.CompletedProcess[str]:
        return called(arguments, asking)

    assert "nothing waits" in threadline("inbox").stderr
    await asked(client, "nested", user_id="u")
    lines = threadline("inbox", "--user", "u").stdout
    assert "nested of u asks since" in lines
    assert '"first"' in lines
    assert threadline("resume", "t").returncode == 2
    assert threadline("resume", "t", "--approve", "--idempotency-key", "k").returncode == 2
    assert threadline("resume", "t", "--value", "{").returncode == 2
    assert threadline("resume", "t", "--approve", "--user", "other").returncode == 2
    answered = json.loads(threadline("resume", "t", "--approve", "--json").stdout)
    with pytest.raises(JobInterrupted):
        await (await client.job(answered["job_id"])).result(timeout=20)
    job = await client.job(threadline("resume", "t", "--reject").stdout.strip())
    assert (await job.result(timeout=20))["heard"][1] == "subagent: inner: first=True, second=False"
    again = threadline("resume", "t", "--approve")
    assert (again.returncode, again.stdout) == (2, "")
    assert "waits for nobody" in again.stderr


def test_R2_an_answer_counts_once_wherever_its_worker_is_killed(asking, database_url, capsys) -> None:
    """A node of a subgraph asks twice: what it has taken as its first answer must never become its second."""
    Path(asking["TEST_GATES"]).mkdir()
    done = called(["nested"], asking, module="support.resume_sweep", timeout=200)
    assert done.returncode == 0, done.stderr
    *killed, undisturbed = [json.loads(line) for line in done.stdout.splitlines()]
    assert undisturbed["heard"] == ["plain", "subagent: inner: first=A, second=B", "plain"]
    assert len(killed) >= 8  # before and after: the decision, the task of the subgraph, the task above it, the end
    for point in killed:
        assert point["recovered"] == 0, point
        assert point["asked"] == undisturbed["asked"], f"killed at point {point['point']}"
        assert point["heard"] == undisturbed["heard"], f"killed at point {point['point']}"
    with capsys.disabled():
        print(f"\nresume: {len(killed)} crash points, 0 differences")  # noqa: T201 - a figure
