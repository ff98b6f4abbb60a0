"""The real client, the testing client and the blocking form of both do the same: one suite, four clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.ledger import cloned, emptied
from support.scenes import KINDS, Scene, run, scene, state
from threadline import (
    InvalidJob,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    ThreadBusy,
    ThreadOwnedByAnother,
    UnknownAgent,
)
from threadline_worker.embedded import ServerUrls

ASKED = [{"id": "i1", "value": "ok?"}]


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture(params=KINDS)
async def stage(request: pytest.FixtureRequest, shared: str, redis_url: str) -> AsyncIterator[Scene]:
    database_url = emptied(shared) if "real" in request.param else ""
    async with scene(request.param, redis_url, database_url) as made:
        yield made


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


async def test_a_job_is_in_the_queue_that_was_named(stage: Scene) -> None:
    plain = await stage.client.enqueue("steps", {"a": 1})
    named = await stage.client.enqueue("steps", {"a": 1}, queue="deep", idempotency_key="k")
    assert [(await job.status()).queue for job in (plain, named)] == ["default", "deep"]
    assert [status.job_id for status in await stage.client.jobs(queue="deep")] == [named.job_id]
    with pytest.raises(InvalidJob, match="was used for another request"):
        await stage.client.enqueue("steps", {"a": 1}, queue="vip", idempotency_key="k")
    with pytest.raises(InvalidJob, match="queue 'No way': use 1-40 of a-z, 0-9, _ and -"):
        await stage.client.enqueue("steps", {"a": 1}, queue="No way")


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


async def read(stage: Scene, count: int, after: str | None = None) -> list[tuple[str, str]]:
    """The first events of the thread `t`."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(20), aclosing(stage.client.thread_events("t", after=after)) as events:
        async for event in events:
            found.append((event.job_id, str(event.type)))
            if len(found) == count:
                break
    return found


async def test_a_thread_is_told_job_by_job(stage: Scene) -> None:
    first = await stage.client.enqueue("steps", "a", thread_id="t")
    second = await stage.client.enqueue("steps", "b", thread_id="t")
    await run(stage, first)
    await run(stage, second)
    whole = [
        *((first.job_id, kind) for kind in ("queued", "started", "succeeded")),
        *((second.job_id, kind) for kind in ("queued", "started", "succeeded")),
    ]

    assert await read(stage, 6) == whole
    assert await read(stage, 4, after=f"{first.job_id}/1-1") == whole[2:]
    assert await read(stage, 1, after=f"{second.job_id}/1-1") == whole[5:]
    with pytest.raises(InvalidJob, match="JOB/ID"):
        await read(stage, 1, after="1-1")
    with pytest.raises(JobNotFound):
        await read(stage, 1, after="nobody/1-1")


async def test_a_job_that_goes_on_after_its_end_is_told_behind_what_was_told_meanwhile(stage: Scene) -> None:
    failing = await stage.client.enqueue("steps", "a", thread_id="t")
    waiting = await stage.client.enqueue("steps", "b", thread_id="t")
    await stage.start(failing)
    await waiting.cancel()
    await stage.finish(failing, raises=JobFailed("error", "no"))
    await stage.client.retry(failing.job_id)
    await stage.start(failing)
    await stage.finish(failing, raises=JobInterrupted([{"id": "q", "value": 1}]))
    replaced = await stage.client.enqueue("steps", "c", thread_id="t")
    await replaced.cancel()
    await failing.cancel()
    whole = [
        *((failing.job_id, kind) for kind in ("queued", "started", "failed")),
        *((waiting.job_id, kind) for kind in ("queued", "cancelled")),
        *((failing.job_id, kind) for kind in ("retried", "resumed", "interrupted")),
        *((replaced.job_id, kind) for kind in ("queued", "cancelled")),
        (failing.job_id, "cancelled"),
    ]
    assert await read(stage, 11) == whole
    for n, after in ((3, f"{failing.job_id}/2-1"), (5, f"{waiting.job_id}/1-1"), (8, f"{failing.job_id}/5-1")):
        assert await read(stage, 11 - n, after=after) == whole[n:]


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
