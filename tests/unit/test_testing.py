"""`threadline.testing` for producers' own tests: scripts, hands on jobs, and failures that show what was enqueued."""

from __future__ import annotations

import asyncio
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest

from threadline import Event, JobCancelled, JobFailed, JobInterrupted, JobNotFound, ResultTimeout, ThreadBusy
from threadline.testing import Client, SyncClient


async def types(job: Any) -> list[str]:
    return [str(event.type) async for event in job.events()]


# Recording


async def test_what_was_enqueued_is_found_by_any_field() -> None:
    client = Client()
    await client.enqueue("research", "one", thread_id="t-1", user_id="me", metadata={"ticket": 7})
    await client.enqueue("research", "two", thread_id="t-2", timeout=timedelta(minutes=5))
    await client.enqueue("other", {"a": 1}, idempotency_key="k")
    await client.enqueue("other", {"a": 1}, idempotency_key="k")  # the same job
    assert [job.input for job in client.enqueued] == ["one", "two", {"a": 1}]
    client.assert_enqueued("research", count=2)
    [found] = client.assert_enqueued(agent="research", thread_id="t-1", user_id="me", metadata=ANY, count=1)
    assert (found.metadata, found.timeout, found.on_busy) == ({"ticket": 7}, None, "enqueue")
    client.assert_enqueued(timeout=300)
    client.assert_enqueued(input={"a": 1}, count=1)
    client.assert_enqueued("none", count=0)
    Client().assert_nothing_enqueued()


async def test_what_was_enqueued_stays_as_it_was() -> None:
    client = Client()
    given: dict[str, Any] = {"seen": []}
    for n in range(2):
        given["seen"].append(n)  # code that goes on using its dict
        await client.enqueue("research", given, metadata=given)
    assert [job.input for job in client.enqueued] == [{"seen": [0]}, {"seen": [0, 1]}]
    assert [job.metadata for job in client.enqueued] == [{"seen": [0]}, {"seen": [0, 1]}]


def test_one_client_serves_one_event_loop_after_the_other() -> None:
    client = Client()
    job = asyncio.run(client.enqueue("research", "one"))
    for _ in range(2):
        with pytest.raises(ResultTimeout):
            asyncio.run(job.result(timeout=0.01))
    blocking = SyncClient()
    for _ in range(2):
        with blocking, pytest.raises(ResultTimeout):
            blocking.enqueue("research", "one", idempotency_key="k").result(timeout=0.01)


async def test_a_failing_assertion_shows_what_was_enqueued() -> None:
    client = Client()
    await client.enqueue("research", "one", thread_id="t-1", on_busy="reject")
    await client.enqueue("other", "x" * 500, thread_id="t-2", metadata={"ticket": 7})
    with pytest.raises(AssertionError) as caught:
        client.assert_enqueued("research", thread_id="t-2", count=1)
    assert str(caught.value) == textwrap.dedent(f"""\
        expected 1 enqueued with agent='research', thread_id='t-2'; 0 of 2 match:
          1. agent='research', input='one', thread_id='t-1', on_busy='reject'  (not: thread_id)
          2. agent='other', input='{"x" * 78}…, thread_id='t-2', metadata={{'ticket': 7}}  (not: agent)""")
    with pytest.raises(AssertionError, match=r"expected 0 enqueued with any fields; 2 of 2 match:\n  1\. agent="):
        client.assert_nothing_enqueued()
    with pytest.raises(AssertionError, match="expected 3 enqueued with any fields; 2 of 2 match"):
        client.assert_enqueued(count=3)
    with pytest.raises(AssertionError, match="expected at least 1 enqueued with user_id='me'"):
        client.assert_enqueued(user_id="me")
    with pytest.raises(AssertionError, match="nothing was enqueued"):
        Client().assert_enqueued()
    with pytest.raises(TypeError, match="no job has thread: use job_id, agent, "):
        client.assert_enqueued(thread="t-1")


async def test_a_long_list_is_shown_in_part() -> None:
    client = Client()
    for n in range(25):
        await client.enqueue("research", f"number {n}")
    with pytest.raises(AssertionError, match=r"20\. .*number 19.*\n  … 5 more$"):
        client.assert_enqueued("other")


async def test_what_is_refused_is_not_recorded() -> None:
    client = Client()
    await client.enqueue("research", "one", thread_id="t")
    with pytest.raises(ThreadBusy):
        await client.enqueue("research", "two", thread_id="t", on_busy="reject")
    client.assert_enqueued(count=1)


async def test_a_connection_is_recorded_and_left_alone() -> None:
    connection: Any = object()
    client = Client()
    await client.enqueue("research", "one", connection=connection)
    assert client.assert_enqueued(connection=connection)[0].connection is connection
    with SyncClient() as blocking:
        blocking.enqueue("research", "one", connection=connection)
        assert blocking.assert_enqueued(connection=connection)[0].connection is connection


async def test_answers_are_recorded() -> None:
    client = Client()
    client.script("ask", raises=JobInterrupted([{"id": "i", "value": "ok?"}]))
    client.script("ask", result=lambda answers: answers)
    asking = await client.enqueue("ask", "go", thread_id="t", user_id="me")
    answer = await client.resume("t", "yes")
    assert await answer.result() == {"i": "yes"}
    assert [tuple(each) for each in client.resumed] == [(answer.job_id, "t", "me", {"i": "yes"})]
    assert [job.job_id for job in client.enqueued] == [asking.job_id]


# Scripts


async def test_a_script_is_played_where_the_job_would_run() -> None:
    client = Client()
    event = Event(job_id="", thread_id="", type="updates", data={"b": 2}, ns=["tools:1"], step=3)
    client.script("research", events=[("updates", {"a": 1}), ("custom", (1,), ["x"]), event], result={"report": "r"})
    job = await client.enqueue("research", "one")
    events = [each async for each in job.events()]
    assert [(each.id, each.type, each.data, each.ns, each.step) for each in events[2:]] == [
        ("1-2", "updates", {"a": 1}, [], None),
        ("1-3", "custom", [1], ["x"], None),
        ("1-4", "updates", {"b": 2}, ["tools:1"], 3),
        ("2-1", "succeeded", {"result": {"report": "r"}}, [], None),
    ]
    assert await job.result() == {"report": "r"}


async def test_each_run_takes_the_next_script_and_the_last_one_is_for_all_later() -> None:
    client = Client()
    client.script("research", raises=JobFailed("error", "no"))
    client.script("research", raises=JobCancelled("replaced"))
    client.script("research", result=lambda text: text.upper())
    first = await client.enqueue("research", "one")
    with pytest.raises(JobFailed, match="error: no"):
        await first.result()
    again = await client.retry(first.job_id)
    with pytest.raises(JobCancelled, match="replaced"):
        await again.result()
    for text in ("two", "three"):
        assert await (await client.enqueue("research", text)).result() == text.upper()


async def test_a_script_without_an_end_leaves_the_job_running() -> None:
    client = Client()
    client.script("research", events=[("updates", {})])
    job = await client.enqueue("research", "one", thread_id="t")
    assert (await job.status()).state == "running"
    client.emit(job, "updates", {"more": 1}, ns=["sub"])
    client.finish(job.job_id, None)
    assert await types(job) == ["queued", "started", "updates", "updates", "succeeded"]
    assert await job.result() is None


async def test_a_script_that_comes_later_runs_what_has_waited_for_it() -> None:
    client = Client()
    job = await client.enqueue("research", "one")
    client.script("research", result=1)
    assert await job.result() == 1


async def test_scripted_jobs_keep_the_order_of_their_thread() -> None:
    client = Client()
    held = await client.enqueue("by-hand", "one", thread_id="t")
    behind = await client.enqueue("research", "two", thread_id="t")
    client.script("research", result=2)
    assert (await behind.status()).state == "queued"
    client.start(held)
    client.finish(held, raises=JobInterrupted([{"id": "i", "value": 1}]))
    assert (await behind.status()).state == "queued"
    answer = await client.resume("t", 1)
    client.start(answer)
    client.finish(answer)
    assert await behind.result() == 2


async def test_a_job_that_is_not_due_waits_for_the_test() -> None:
    client = Client()
    client.script("research", result=1)
    job = await client.enqueue("research", "one", run_at=datetime.now(UTC) + timedelta(days=1))
    assert (await job.status()).state == "queued"
    client.play(job)
    assert await job.result() == 1


def test_scripts_that_have_no_meaning_are_refused() -> None:
    client = Client()
    with pytest.raises(ValueError, match="give a result or raises=, not both"):
        client.script("research", result=1, raises=JobFailed("error", "no"))
    with pytest.raises(ValueError, match=r"an event is \(type, data\)"):
        client.script("research", events=[("updates",)])
    with pytest.raises(ValueError, match=r"data b'' is not expressible|data .* is not expressible as JSON"):
        client.script("research", events=[("updates", {1j})])
    with pytest.raises(ValueError, match="no script"):
        asyncio.run(_play(client))


async def _play(client: Client) -> None:
    client.play(await client.enqueue("research", "one"))


async def test_hands_on_jobs_that_cannot_be_moved_say_so() -> None:
    client = Client()
    job = await client.enqueue("research", "one")
    for move in (client.finish, lambda one: client.emit(one, "updates")):
        with pytest.raises(ValueError, match=f"job {job.job_id} is queued, not running"):
            move(job)
    client.start(job)
    with pytest.raises(ValueError, match=f"job {job.job_id} is running: only a queued one can start"):
        client.start(job)
    with pytest.raises(ValueError, match=r"result .* is not expressible as JSON"):
        client.finish(job, object())
    with pytest.raises(JobNotFound):
        client.finish("nobody")


# What would wait for ever


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("queued", r"give its agent a script\('research', result=…\), or move it with start"),
        ("running", r"end it with finish\(job, …\)"),
        ("not due", r"it is not due, or another job of its thread stands before it; play\(job\)"),
    ],
)
async def test_a_test_that_would_wait_for_ever_is_told_what_for(state: str, hint: str) -> None:
    client = Client(patience=0.05)
    if state == "not due":
        client.script("research", result=1)
    run_at = datetime.now(UTC) + timedelta(days=1) if state == "not due" else None
    job = await client.enqueue("research", "one", thread_id="t", run_at=run_at)
    if state == "running":
        client.start(job)
    with pytest.raises(AssertionError, match=hint):
        await job.result()
    with pytest.raises(AssertionError, match=hint):
        await types(job)
    with pytest.raises(AssertionError, match=r"nothing has happened on thread t for 0\.05 s"):
        async for _ in client.thread_events("t"):
            pass


# As a stand-in


async def test_it_may_be_closed_and_used_again() -> None:
    client = Client.from_env({})
    for n in range(2):
        async with client as entered:
            await entered.enqueue("research", f"number {n}")
    client.assert_enqueued(count=2)


def test_the_blocking_one_may_be_closed_and_used_again() -> None:
    client = SyncClient.from_env({})
    client.script("research", events=[("updates", {})], result=1)
    for n in range(2):
        with client as entered:
            job = entered.enqueue("research", f"number {n}")
            assert [event.type for event in job.events()][-1] == "succeeded"
            assert job.result() == 1
    client.assert_enqueued("research", count=2)
    assert [job.input for job in client.enqueued] == ["number 0", "number 1"]
    assert client.resumed == []
    with pytest.raises(AssertionError, match="expected 0"):
        client.assert_nothing_enqueued()
    client.close()


def test_hands_on_jobs_of_the_blocking_one_reach_those_that_wait() -> None:
    with SyncClient() as client:
        job = client.enqueue("research", "one")
        stream = job.events()
        assert next(stream).type == "queued"
        client.start(job)
        assert next(stream).type == "started"
        assert client.emit(job, "updates", {"a": 1}).id == "1-2"
        assert next(stream).data == {"a": 1}
        client.finish(job, raises=JobFailed("error", "no"))
        assert [event.type for event in stream] == ["failed"]
        client.script("research", result=2)
        later = client.enqueue("research", "two", run_at=datetime.now(UTC) + timedelta(days=1))
        client.play(later)
        assert later.result() == 2


async def test_agents_are_those_that_were_named() -> None:
    client = Client(agents=["research"])
    await client.enqueue("research", "text")
    assert [status.agent for status in await client.jobs()] == ["research"]


async def test_what_is_not_played_says_so() -> None:
    with pytest.raises(NotImplementedError, match=r"does not play state\(\): replace it on the client"):
        await Client().state("t")
    with pytest.raises(NotImplementedError, match=r"threadline\.testing does not play 'beat': use real"):
        await Client()._backends.need_ledger("beat").database.rows("beat")
