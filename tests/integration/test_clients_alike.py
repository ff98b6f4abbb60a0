"""The real client, the testing client and the blocking form of both do the same: one suite, four clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.ledger import cloned, emptied
from support.scenes import KINDS, Scene, scene
from threadline import (
    InvalidJob,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    NotWaiting,
    ResultTimeout,
    ThreadBusy,
    ThreadMovedOn,
    ThreadOwnedByAnother,
    UnknownAgent,
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


async def told(job: Any, after: str | None = None) -> list[tuple[str | None, str]]:
    """Ids and types of a job's events."""
    async with asyncio.timeout(20):
        return [(event.id, str(event.type)) async for event in job.events(after=after)]


async def run(stage: Scene, job: Any, result: Any = None, raises: Any = None) -> None:
    await stage.start(job)
    await stage.finish(job, result, raises=raises)


async def state(job: Any) -> str:
    return str((await job.status()).state)


# Enqueue


async def test_a_job_is_as_it_was_asked_for(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", {"a": 1}, thread_id="t", user_id="me", metadata={"ticket": 7})
    status = await job.status()
    assert (status.job_id, status.thread_id, status.user_id, status.agent) == (job.job_id, "t", "me", "steps")
    assert (status.state, status.epoch, status.failures, status.stalls) == ("queued", 0, 0, 0)
    assert (status.worker_id, status.error, status.started_at, status.finished_at) == (None, None, None, None)
    assert (status.metadata, status.webhook) == ({"ticket": 7}, None)
    assert abs(datetime.now(UTC) - status.created_at) < timedelta(minutes=1)
    again = await stage.client.job(job.job_id)
    assert (again.job_id, again.thread_id) == (job.job_id, "t")
    assert await job.status() == await again.status()


async def test_without_a_thread_each_job_has_a_new_one(stage: Scene) -> None:
    first, second = [await stage.client.enqueue("steps", "a") for _ in range(2)]
    assert first.thread_id != second.thread_id
    assert first.job_id != second.job_id


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"input": ""}, "input is empty"),
        ({"input": 5}, "input is a int: give a str"),
        ({"input": {"a": b""}}, "input: not expressible as JSON"),
        ({"thread_id": "a b"}, "thread id 'a b': use 1-200"),
        ({"user_id": ""}, "user id: use a string of 1-500"),
        ({"on_busy": "wait"}, "on_busy='wait': use enqueue, reject, interrupt or rollback"),
        ({"stream_modes": "updates"}, "stream_modes='updates': give a list of str"),
        ({"stream_modes": ["tokens"]}, "stream mode 'tokens'"),
        ({"run_at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the case
        ({"timeout": -1}, "timeout=-1"),
        ({"expires": "soon"}, "expires='soon'"),
        ({"metadata": []}, "metadata is a list"),
        ({"idempotency_key": ""}, "idempotency key: use a string"),
        ({"webhook_url": "ftp://x"}, "webhook_url"),
        ({"agent": "no such/agent"}, "agent 'no such/agent'"),
        ({"agent": "dicts"}, "agent dicts has no `messages`: give its input as a dict"),
    ],
)
async def test_what_breaks_a_rule_is_refused_and_not_stored(stage: Scene, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidJob, match=rule):
        await stage.client.enqueue(**{"agent": "steps", "input": "a", **options})
    assert await stage.client.jobs() == []


async def test_an_agent_that_no_live_worker_has_is_refused(stage: Scene) -> None:
    with pytest.raises(UnknownAgent, match=r"no live worker runs the agent 'other'; known: dicts, steps$"):
        await stage.client.enqueue("other", "a")
    assert await stage.client.jobs() == []


async def test_a_thread_has_one_owner(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a", thread_id="t", user_id="me")
    with pytest.raises(ThreadOwnedByAnother, match="thread t belongs to another user"):
        await stage.client.enqueue("steps", "a", thread_id="t", user_id="you")
    for ask in (stage.client.job, stage.client.retry):
        with pytest.raises(ThreadOwnedByAnother, match=f"job {job.job_id} belongs to another user"):
            await ask(job.job_id, user_id="you")
    with pytest.raises(ThreadOwnedByAnother, match="thread t belongs to another user"):
        await stage.client.resume("t", 1, user_id="you")
    with pytest.raises(ThreadOwnedByAnother, match="thread t belongs to another user"):
        async for _ in stage.client.thread_events("t", user_id="you"):
            pass
    assert (await stage.client.job(job.job_id, user_id="me")).job_id == job.job_id


async def test_an_unknown_job_is_said_to_be_unknown(stage: Scene) -> None:
    for ask in (stage.client.job, stage.client.retry, stage.client.redeliver):
        with pytest.raises(JobNotFound, match="no job nobody is known"):
            await ask("nobody")
        with pytest.raises(InvalidJob, match="job id 'a b'"):
            await ask("a b")


# Idempotency


async def test_one_key_is_one_job_also_after_it_failed(stage: Scene) -> None:
    first = await stage.client.enqueue("steps", "a", idempotency_key="k")
    await run(stage, first, raises=JobFailed("error", "no"))
    again = await stage.client.enqueue("steps", "a", idempotency_key="k")
    assert (again.job_id, again.thread_id) == (first.job_id, first.thread_id)
    with pytest.raises(InvalidJob, match=rf"idempotency key 'k' was used for another request \(job {first.job_id}\)"):
        await stage.client.enqueue("steps", "b", idempotency_key="k")
    other = await stage.client.enqueue("steps", "b", idempotency_key="k", user_id="you")
    assert other.job_id != first.job_id
    assert len(await stage.client.jobs()) == 2


async def test_the_key_is_looked_up_before_on_busy(stage: Scene) -> None:
    options = {"thread_id": "t", "idempotency_key": "k", "on_busy": "reject"}
    first = await stage.client.enqueue("steps", "a", **options)
    assert (await stage.client.enqueue("steps", "a", **options)).job_id == first.job_id


# A busy thread


async def test_reject_names_the_job_that_holds_the_thread(stage: Scene) -> None:
    holding = await stage.client.enqueue("steps", "a", thread_id="t")

    async def refused(how: str) -> None:
        with pytest.raises(ThreadBusy, match=f"thread t is busy: job {holding.job_id} is {how}") as caught:
            await stage.client.enqueue("steps", "b", thread_id="t", on_busy="reject")
        assert caught.value.job_id == holding.job_id

    await refused("queued")
    await stage.start(holding)
    await refused("running")
    await stage.finish(holding, raises=JobInterrupted(ASKED))
    await refused("interrupted")
    await holding.cancel()
    assert await state(await stage.client.enqueue("steps", "b", thread_id="t", on_busy="reject")) == "queued"


@pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
async def test_what_is_queued_or_waits_is_replaced_at_once(stage: Scene, on_busy: str) -> None:
    waiting = await stage.client.enqueue("steps", "a", thread_id="t")
    await run(stage, waiting, raises=JobInterrupted(ASKED))
    queued = await stage.client.enqueue("steps", "b", thread_id="t")
    new = await stage.client.enqueue("steps", "c", thread_id="t", on_busy=on_busy)
    for job in (waiting, queued):
        status = await job.status()
        assert (status.state, status.error) == ("cancelled", {"code": "replaced", "message": ""})
        with pytest.raises(JobCancelled, match="replaced"):
            await job.result(timeout=10)
    assert await state(new) == "queued"


async def test_what_runs_is_asked_to_stop_and_replaced(stage: Scene) -> None:
    running = await stage.client.enqueue("steps", "a", thread_id="t")
    await stage.start(running)
    await stage.client.enqueue("steps", "b", thread_id="t", on_busy="interrupt")
    await stage.settle(running)
    assert (await running.status()).error == {"code": "replaced", "message": ""}


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


# Lists and threads


async def test_jobs_are_listed_newest_first_and_filtered(stage: Scene) -> None:
    first = await stage.client.enqueue("steps", "a", thread_id="t", user_id="me")
    second = await stage.client.enqueue("steps", "a", thread_id="t", user_id="me")
    other = await stage.client.enqueue("steps", "a", user_id="you")
    await stage.start(first)

    async def listed(**filters: Any) -> list[str]:
        return [status.job_id for status in await stage.client.jobs(**filters)]

    assert await listed() == [other.job_id, second.job_id, first.job_id]
    assert await listed(thread_id="t") == [second.job_id, first.job_id]
    assert await listed(state="running") == [first.job_id]
    assert await listed(state="queued", user_id="me") == [second.job_id]
    assert await listed(limit=1) == [other.job_id]
    refused: list[dict[str, Any]] = [{"state": "lost"}, {"thread_id": "a b"}, {"user_id": ""}]
    for filters in refused:
        with pytest.raises(InvalidJob):
            await listed(**filters)


async def test_a_thread_is_told_job_by_job(stage: Scene) -> None:
    first = await stage.client.enqueue("steps", "a", thread_id="t")
    second = await stage.client.enqueue("steps", "b", thread_id="t")
    await run(stage, first)
    await run(stage, second)
    whole = [
        *((first.job_id, kind) for kind in ("queued", "started", "succeeded")),
        *((second.job_id, kind) for kind in ("queued", "started", "succeeded")),
    ]

    async def read(count: int, after: str | None = None) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        async with asyncio.timeout(20), aclosing(stage.client.thread_events("t", after=after)) as events:
            async for event in events:
                found.append((event.job_id, str(event.type)))
                if len(found) == count:
                    break
        return found

    assert await read(6) == whole
    assert await read(4, after=f"{first.job_id}/1-1") == whole[2:]
    assert await read(1, after=f"{second.job_id}/1-1") == whole[5:]
    with pytest.raises(InvalidJob, match="JOB/ID"):
        await read(1, after="1-1")
    with pytest.raises(JobNotFound):
        await read(1, after="nobody/1-1")


async def test_a_webhook_shows_in_the_status(stage: Scene) -> None:
    job = await stage.client.enqueue("steps", "a", webhook_url="https://example.org/hook")
    assert (await job.status()).webhook == {
        "state": "waiting",
        "epoch": None,
        "attempts": 0,
        "status": None,
        "answer": None,
        "next_at": None,
        "delivered_at": None,
    }
    with pytest.raises(InvalidJob, match=f"job {job.job_id} has nothing to report"):
        await stage.client.redeliver(job.job_id)
    await run(stage, job)
    webhook = (await stage.client.redeliver(job.job_id)).webhook
    assert (webhook["state"], webhook["epoch"], webhook["attempts"]) == ("pending", 2, 0)
    assert webhook["next_at"] is not None
