"""The other half of test_clients_alike.py: what becomes of jobs, their ends, retries and answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from support.ledger import cloned, emptied
from support.scenes import KINDS, Scene, run, scene, state, told
from threadline import (
    InvalidJob,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    NotWaiting,
    ResultTimeout,
    ThreadMovedOn,
)
from threadline_worker.embedded import ServerUrls

ASKED = [{"id": "i1", "value": "ok?"}]
TWO = [{"id": "i1", "value": "a?"}, {"id": "i2", "value": "b?"}]


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture(params=KINDS)
async def stage(request: pytest.FixtureRequest, shared: str, redis_url: str) -> AsyncIterator[Scene]:
    database_url = emptied(shared) if "real" in request.param else ""
    async with scene(request.param, redis_url, database_url) as made:
        yield made


# A run


async def test_a_run_is_told_event_by_event(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a", thread_id="t")
    await stage.start(job)
    status = await job.status()
    assert (status.state, status.epoch, status.worker_id is not None) == ("running", 1, True)
    assert status.started_at is not None
    await stage.emit(job, "updates", {"model": {"n": 1}})
    await stage.emit(job, "custom", [1, None, "é"])
    await stage.finish(job, {"report": "é"})
    async with asyncio.timeout(20):
        events = [event async for event in job.events()]
    assert [(event.id, event.type, event.prev) for event in events] == [
        ("0-1", "queued", None),
        ("1-1", "started", "0-1"),
        ("1-2", "updates", None),
        ("1-3", "custom", None),
        ("2-1", "succeeded", "1-3"),
    ]
    assert [event.data for event in events[2:]] == [{"model": {"n": 1}}, [1, None, "é"], {"result": {"report": "é"}}]
    assert events[0].data == {"agent": "steps"}
    assert events[1].data == {"worker_id": status.worker_id, "epoch": 1, "checkpoint_id": None}
    assert {(event.job_id, event.thread_id, event.v) for event in events} == {(job.job_id, "t", 1)}
    assert all(event.at.endswith("Z") for event in events)
    assert await job.result(timeout=10) == {"report": "é"}
    status = await job.status()
    assert (status.state, status.epoch, status.error) == ("succeeded", 2, None)
    assert status.finished_at is not None


async def test_a_reader_goes_on_behind_a_position(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    await run(stage, job)
    assert await told(job, "0-1") == [("1-1", "started"), ("2-1", "succeeded")]
    assert await told(job, "2-1") == []
    assert await told(job, "1-7") == [(None, "gap"), ("2-1", "succeeded")]
    for after in ("", "x", "1", "1-x"):
        with pytest.raises(InvalidJob, match="after="):
            await told(job, after)


async def test_a_reader_hears_what_happens_while_it_reads(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    await stage.start(job)
    begun: asyncio.Event = asyncio.Event()

    async def read() -> list[str]:
        heard = []
        async for event in job.events():
            heard.append(str(event.type))
            begun.set()
        return heard

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        waiting = group.create_task(job.result())
        await begun.wait()
        await stage.emit(job, "updates", {})
        await stage.finish(job, 5)
    assert reading.result() == ["queued", "started", "updates", "succeeded"]
    assert waiting.result() == 5


@pytest.mark.parametrize(
    ("raises", "state_after", "error"),
    [
        (JobFailed("timeout", "too slow"), "failed", {"code": "timeout", "message": "too slow"}),
        (JobCancelled("requested"), "cancelled", {"code": "requested", "message": ""}),
        (JobInterrupted(ASKED), "interrupted", None),
    ],
)
async def test_every_end_is_told(stage: Scene, raises: Any, state_after: str, error: Any) -> None:
    job = await stage.client.enqueue("steps", "a")
    await run(stage, job, raises=raises)
    with pytest.raises(type(raises)) as caught:
        await job.result(timeout=10)
    assert vars(caught.value) == vars(raises)
    status = await job.status()
    assert (status.state, status.error) == (state_after, error)
    assert await told(job) == [("0-1", "queued"), ("1-1", "started"), ("2-1", state_after)]


async def test_a_result_over_a_mebibyte_is_cut_in_the_event_and_whole_in_the_result(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    await run(stage, job, "x" * 1_100_000)
    async with asyncio.timeout(20):
        events = [event async for event in job.events()]
    assert events[-1].data["truncated"] is True
    assert await job.result(timeout=10) == "x" * 1_100_000


async def test_a_result_that_takes_too_long_is_a_timeout_and_the_job_goes_on(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    with pytest.raises(ResultTimeout, match=rf"job {job.job_id} has not ended within 0.05 s; it goes on"):
        await job.result(timeout=0.05)
    with pytest.raises(InvalidJob, match="timeout=0"):
        await job.result(timeout=0)
    assert await state(job) == "queued"


# Cancel and retry


async def test_a_queued_job_ends_at_once(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    assert (await job.cancel()).state == "cancelled"
    assert await told(job) == [("0-1", "queued"), ("1-1", "cancelled")]
    with pytest.raises(JobCancelled, match="requested"):
        await job.result(timeout=10)
    assert (await job.cancel()).epoch == 1


async def test_a_running_job_is_asked_to_stop(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    await stage.start(job)
    assert (await job.cancel()).state == "running"
    await stage.settle(job)
    with pytest.raises(JobCancelled, match="requested"):
        await job.result(timeout=10)


async def test_a_retry_goes_on_as_the_same_job(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a")
    await run(stage, job, raises=JobFailed("error", "no"))
    again = await stage.client.retry(job.job_id)
    assert (again.job_id, again.thread_id) == (job.job_id, job.thread_id)
    status = await again.status()
    assert (status.state, status.epoch, status.error, status.finished_at) == ("queued", 3, None, None)
    await run(stage, again, 7)
    assert await again.result(timeout=10) == 7
    assert [kind for _, kind in await told(again)] == [
        "queued",
        "started",
        "failed",
        "retried",
        "resumed",
        "succeeded",
    ]


async def test_only_ended_jobs_are_retried_and_only_until_the_thread_moves_on(stage: Scene) -> None:
    first = await stage.client.enqueue("steps", "a", thread_id="t")
    with pytest.raises(InvalidJob, match=f"job {first.job_id} is queued: only failed and cancelled jobs"):
        await stage.client.retry(first.job_id)
    await run(stage, first, raises=JobFailed("error", "no"))
    second = await stage.client.enqueue("steps", "b", thread_id="t")
    await stage.start(second)
    with pytest.raises(ThreadMovedOn, match="a later job of thread t has started"):
        await stage.client.retry(first.job_id)


# People


async def test_an_answer_is_a_new_job_in_the_asking_ones_place(stage: Scene) -> None:
    asking = await stage.client.enqueue("steps", "a", thread_id="t", user_id="me", metadata={"a": 1})
    later = await stage.client.enqueue("steps", "b", thread_id="t", user_id="me")
    await run(stage, asking, raises=JobInterrupted(ASKED))
    [waiting] = await stage.client.inbox()
    assert (waiting.job_id, waiting.thread_id, waiting.user_id, waiting.agent) == (asking.job_id, "t", "me", "steps")
    assert (waiting.interrupts, waiting.metadata, waiting.expires_at) == (ASKED, {"a": 1}, None)
    assert await stage.client.inbox(user_id="you") == []

    answer = await stage.client.resume("t", "yes", user_id="me", metadata={"b": 2})
    assert answer.job_id not in {asking.job_id, later.job_id}
    status = await answer.status()
    assert (status.thread_id, status.user_id, status.agent, status.metadata) == ("t", "me", "steps", {"b": 2})
    assert await stage.client.inbox() == []
    with pytest.raises(NotWaiting, match="thread t waits for nobody"):
        await stage.client.resume("t", "yes")
    await run(stage, answer, "done")
    assert await answer.result(timeout=10) == "done"
    await run(stage, later)


async def test_an_answer_that_does_not_fit_is_refused(stage: Scene) -> None:
    with pytest.raises(NotWaiting, match="thread t is not known"):
        await stage.client.resume("t", 1)
    job = await stage.client.enqueue("steps", "a", thread_id="t")
    with pytest.raises(NotWaiting, match="thread t waits for nobody"):
        await stage.client.resume("t", 1)
    await run(stage, job, raises=JobInterrupted(TWO))
    with pytest.raises(InvalidJob, match=r"thread t has several questions: .* i1, i2"):
        await stage.client.resume("t", 1)
    with pytest.raises(InvalidJob, match="thread t asks i1, i2"):
        await stage.client.resume("t")
    with pytest.raises(InvalidJob, match="values= has to name questions that thread t asks; it asks: i1, i2"):
        await stage.client.resume("t", values={"i3": 1})
    with pytest.raises(InvalidJob, match="not both"):
        await stage.client.resume("t", 1, values={"i1": 1})
    assert len(await stage.client.jobs()) == 1
    answer = await stage.client.resume("t", values={"i1": 1}, idempotency_key="k")
    assert (await stage.client.resume("t", values={"i1": 1}, idempotency_key="k")).job_id == answer.job_id
    with pytest.raises(InvalidJob, match="idempotency key 'k' was used for another request"):
        await stage.client.resume("t", values={"i1": 2}, idempotency_key="k")


async def test_an_answer_that_is_taken_back_leaves_the_question_open(stage: Scene) -> None:
    asking = await stage.client.enqueue("steps", "a", thread_id="t")
    await run(stage, asking, raises=JobInterrupted(ASKED))
    answer = await stage.client.resume("t", "yes")
    await answer.cancel()
    assert [waiting.job_id for waiting in await stage.client.inbox(thread_id="t")] == [asking.job_id]
    await stage.client.resume("t", "no")
    with pytest.raises(ThreadMovedOn):
        await stage.client.retry(answer.job_id)


async def test_an_answer_to_a_question_that_is_withdrawn_is_not_given_again(stage: Scene) -> None:
    asking = await stage.client.enqueue("steps", "a", thread_id="t")
    await run(stage, asking, raises=JobInterrupted(ASKED))
    answer = await stage.client.resume("t", "yes")
    await answer.cancel()
    await asking.cancel()
    with pytest.raises(ThreadMovedOn):
        await stage.client.retry(answer.job_id)
    assert await state(answer) == "cancelled"


async def test_a_wait_says_when_it_ends(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a", wait_expires=3600)
    await run(stage, job, raises=JobInterrupted(ASKED))
    [waiting] = await stage.client.inbox()
    assert waiting.expires_at - waiting.since == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=1))
    assert waiting.since.tzinfo is not None


async def test_a_breakpoint_asks_nothing(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a", thread_id="t", interrupt_before=["step"])
    await run(stage, job, raises=JobInterrupted([]))
    with pytest.raises(InvalidJob, match="thread t waits at a breakpoint and asks nothing"):
        await stage.client.resume("t", 1)
    assert await state(await stage.client.resume("t")) == "queued"
