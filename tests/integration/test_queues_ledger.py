"""A job is in one queue for good, whoever stores it, and only a worker that serves it claims it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.ledger import Bench, bench_on, cloned, emptied
from threadline import Client, InvalidJob
from threadline.cli.doctor.check import Level
from threadline.cli.doctor.database import judge_queues
from threadline.contract.job import new_id
from threadline.contract.states import State
from threadline.ledger.custody import Claim
from threadline.ledger.internal import Asked, InternalJobs
from threadline_worker.embedded import ServerUrls

OPERATIONS = 15.0


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    """`plain` serves the default queue, `deep` its own, `both` both."""
    async with bench_on(emptied(shared), workers=()) as made:
        await made.worker("plain")
        await made.worker("deep", queues=("deep",))
        await made.worker("both", queues=("deep", "default"))
        yield made


async def queue(bench: Bench, job_id: str) -> str:
    return str((await bench.row(job_id))["queue"])


# Claims


async def test_only_a_worker_that_serves_a_jobs_queue_claims_it(bench: Bench) -> None:
    job = await bench.enqueue(queue="deep")
    assert await bench.ledger.claim(job.job_id, "plain") is None
    assert (await bench.claim(job.job_id, "deep")).job_id == job.job_id
    plain = await bench.enqueue()
    assert await bench.ledger.claim(plain.job_id, "deep") is None
    assert (await bench.claim(plain.job_id, "both")).job_id == plain.job_id


def test_of_any_jobs_and_workers_only_those_that_fit_meet(shared: str) -> None:
    names = st.sampled_from(["default", "a", "b", "c"])

    async def check(bench: Bench, queues: list[str], workers: list[set[str]]) -> None:
        made = [(await bench.enqueue(queue=name)).job_id for name in queues]
        for number, serves in enumerate(workers):
            await bench.worker(f"w{number}", queues=tuple(sorted(serves)))
        for name, job_id in zip(queues, made, strict=True):
            fitting = [number for number, serves in enumerate(workers) if name in serves]
            claims = [await bench.ledger.claim(job_id, f"w{number}") for number in range(len(workers))]
            assert [number for number, claim in enumerate(claims) if isinstance(claim, Claim)] == fitting[:1]

    with asyncio.Runner() as runner:
        context = bench_on(emptied(shared), workers=(), size=1)
        bench = runner.run(context.__aenter__())

        @settings(max_examples=40, deadline=None, database=None)
        @given(st.lists(names, min_size=1, max_size=4), st.lists(st.sets(names, min_size=1), max_size=3))
        def examples(queues: list[str], workers: list[set[str]]) -> None:
            runner.run(check(bench, queues, workers))

        examples()
        runner.run(context.__aexit__(None, None, None))


async def test_a_worker_of_a_release_without_queues_serves_the_default_one_alone(bench: Bench) -> None:
    await bench.worker("old")
    await bench.sql("UPDATE threadline.workers SET queues = NULL WHERE worker_id = 'old'")
    job, plain = await bench.enqueue(queue="deep"), await bench.enqueue()
    assert (await bench.claim(plain.job_id, "old")).job_id == plain.job_id
    assert await bench.ledger.claim(job.job_id, "old") is None
    # Its own statement knows no queues.
    own = "UPDATE threadline.jobs SET state = 'running', worker_id = 'old', epoch = 1 WHERE job_id = %s"
    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        await bench.sql(own, job.job_id)
    assert refused.value.diag.constraint_name == "jobs_one_running"  # "not claimed", in every release
    assert (await bench.row(job.job_id))["state"] == "queued"


async def test_a_worker_without_the_agent_leaves_the_job_to_one_of_its_queue_only(bench: Bench) -> None:
    await bench.worker("bare", agents="{}", queues=("deep", "lone"))
    job, lone = await bench.enqueue(queue="deep"), await bench.enqueue(queue="lone")
    assert await bench.ledger.claim(job.job_id, "bare") is None  # `deep` has the agent
    assert (await bench.claim(lone.job_id, "bare")).job_id == lone.job_id  # nobody else would ever have it


async def test_O1_a_later_job_in_another_queue_waits_for_the_earlier_one(bench: Bench) -> None:
    first = await bench.enqueue(thread_id="t", queue="deep")
    second = await bench.enqueue(thread_id="t")
    assert (first.head, second.head) == (True, False)
    assert await bench.ledger.claim(second.job_id, "plain") is None
    assert await bench.ledger.dispatch_due(thread_id="t") == []
    claim = await bench.claim(first.job_id, "deep")
    assert await bench.ledger.claim(second.job_id, "plain") is None
    await bench.ledger.finish(claim, State.SUCCEEDED)
    assert [(due.job_id, due.queue) for due in await bench.ledger.dispatch_due(thread_id="t")] == [
        (second.job_id, "default")
    ]
    assert (await bench.claim(second.job_id, "plain")).job_id == second.job_id


# Where jobs go


async def test_a_job_stays_in_its_queue_through_release_rescue_and_retry(bench: Bench) -> None:
    job = await bench.enqueue(queue="deep")
    claim = await bench.claim(job.job_id, "deep")
    await bench.ledger.release(claim, "drain")
    assert [due.queue for due in await bench.ledger.dispatch_due()] == ["deep"]
    await bench.claim(job.job_id, "both")
    await bench.rescue("both")
    assert [due.queue for due in await bench.ledger.dispatch_due()] == ["deep"]
    claim = await bench.claim(job.job_id, "deep")
    await bench.ledger.finish(claim, State.FAILED, code="error")
    await bench.ledger.retry(job.job_id)
    assert [due.queue for due in await bench.ledger.dispatch_due()] == ["deep"]


async def test_the_map_decides_at_enqueue_and_the_callers_word_goes_before_it(bench: Bench, shared: str) -> None:
    rules = {"steps": "deep", "user:42": "vip"}
    async with Client(database_url=shared, queues=rules) as client:
        made = [
            await client.enqueue("steps", {"until": 1}, **options)
            for options in ({}, {"user_id": "42"}, {"user_id": "42", "queue": "default"}, {"queue": "odd"})
        ]
        assert [(await job.status()).queue for job in made] == ["deep", "vip", "default", "odd"]
        assert [status.job_id for status in await client.jobs(queue="odd")] == [made[3].job_id]
        with pytest.raises(InvalidJob, match="queue 'No way'"):
            await client.jobs(queue="No way")


async def test_L2_a_changed_map_makes_no_other_request_of_the_same_one(bench: Bench, shared: str) -> None:
    asked: dict[str, Any] = {"idempotency_key": "k", "thread_id": "t"}
    async with Client(database_url=shared) as before, Client(database_url=shared, queues={"steps": "deep"}) as after:
        first = await before.enqueue("steps", {"until": 1}, **asked)
        again = await after.enqueue("steps", {"until": 1}, **asked)
        assert again.job_id == first.job_id
        assert (await again.status()).queue == "default"
        with pytest.raises(InvalidJob, match="was used for another request"):
            await after.enqueue("steps", {"until": 1}, **asked, queue="deep")


async def test_an_answer_goes_to_the_queue_of_the_job_that_asked(bench: Bench, shared: str) -> None:
    job = await bench.enqueue(thread_id="t", queue="deep")
    claim = await bench.claim(job.job_id, "deep")
    await bench.ledger.finish(claim, State.INTERRUPTED, interrupts=[{"id": "i", "value": 1}])
    async with Client(database_url=shared, queues={"steps": "other"}) as client:
        answer = await client.resume("t", "yes")
        assert (await answer.status()).queue == "deep"


async def test_an_operation_finds_a_worker_that_can_do_it(bench: Bench) -> None:
    async def asked(thread_id: str, agent: str | None = None) -> str:
        jobs = InternalJobs(bench.ledger)
        arguments: dict[str, Any] = {"checkpoint_id": None}
        stored, _ = await jobs.ask(
            new_id(), Asked("state", thread_id, new_id(), arguments, None, agent, OPERATIONS), dispatching=True
        )
        assert stored.queue == await queue(bench, stored.job_id)
        return stored.queue

    await bench.enqueue(thread_id="deep", queue="deep")
    await bench.enqueue(thread_id="lone", queue="lone")
    assert await asked("deep") == "deep"
    assert await asked("lone") in {"deep", "default"}  # nobody serves `lone`
    await bench.worker("other", agents='{"other": {}}', queues=("else",))
    assert await asked("deep", agent="other") == "else"
    await bench.sql("DELETE FROM threadline.workers")
    assert await asked("lone") == "lone"
    await bench.sql("INSERT INTO threadline.threads (thread_id, user_id, agent) VALUES ('made', 'default', 'steps')")
    assert await asked("made") == "default"


async def test_a_queue_is_read_whatever_else_the_options_hold(bench: Bench) -> None:
    job = await bench.enqueue(
        queue="deep", interrupt_before=["\0", '"queue": "no"'], context={"queue": "no"}, configurable={"queue": "no"}
    )
    assert await queue(bench, job.job_id) == "deep"
    plain = await bench.enqueue(interrupt_before=['"queue": "no"'], context={"queue": "no"})
    assert await queue(bench, plain.job_id) == "default"


# What the sweep and others ask


async def test_L4_a_backlog_that_nobody_takes_hides_no_lost_message_of_another_queue(bench: Bench) -> None:
    for _ in range(5):
        await bench.enqueue(queue="lone")
    lost, fresh = await bench.enqueue(), await bench.enqueue()
    await bench.sql("UPDATE threadline.jobs SET dispatched_at = now() - interval '1 minute' WHERE queue = 'lone'")
    await bench.set(lost.job_id, "dispatched_at = now() - interval '30 seconds'")
    assert fresh.head
    found = await bench.ledger.dispatched_long_ago(10.0, ("default", "lone"), limit=3)
    assert sorted(due.queue for due in found) == ["default", "lone", "lone", "lone"]
    assert [due.job_id for due in found if due.queue == "default"] == [lost.job_id]
    assert {due.queue for due in await bench.ledger.dispatched_long_ago(10.0, ("default",), limit=3)} == {"default"}


async def test_a_burst_ends_with_its_own_queues(bench: Bench) -> None:
    assert not await bench.ledger.unfinished(["default", "deep"])
    first = await bench.enqueue(thread_id="t", queue="deep")
    assert [await bench.ledger.unfinished([name]) for name in ("deep", "default")] == [True, False]
    await bench.enqueue(thread_id="t")
    assert not await bench.ledger.unfinished(["default"])  # behind what nobody here will run
    claim = await bench.claim(first.job_id, "deep")
    assert await bench.ledger.unfinished(["default"])  # behind what runs
    await bench.ledger.finish(claim, State.SUCCEEDED)
    assert [await bench.ledger.unfinished([name]) for name in ("deep", "default")] == [False, True]


async def test_the_gauges_by_queue_add_up_to_those_of_all(bench: Bench) -> None:
    await bench.started("deep", queue="deep")
    await bench.enqueue(queue="lone")
    await bench.enqueue()
    asking = await bench.started("plain")
    await bench.ledger.finish(asking, State.INTERRUPTED, interrupts=[])
    row = await bench.ledger.gauges()
    figures = {one["queue"]: one for one in row["queues"]}
    states = ("queued", "running", "interrupted")
    assert {name: tuple(one[state] for state in states) for name, one in figures.items()} == {
        "deep": (0, 1, 0),
        "default": (1, 0, 1),
        "lone": (1, 0, 0),
    }
    assert {name: one["workers"] for name, one in figures.items()} == {"deep": 2, "default": 2, "lone": 0}
    assert [row[state] for state in states] == [sum(one[state] for one in figures.values()) for state in states]
    assert row["oldest_queued_seconds"] == max(one["oldest"] for one in figures.values()) > 0
    assert row["workers"] == 3


async def test_doctor_names_the_queues_that_no_live_worker_serves(bench: Bench) -> None:
    async def judged(*mapped: str) -> list[tuple[Level, str]]:
        rows = await bench.run("doctor_queues", lease_seconds=15.0)
        return [(check.level, check.seen) for check in judge_queues(rows, mapped)]

    assert await judged("deep") == [(Level.OK, "all are served: deep, default")]
    await bench.enqueue(queue="lone")
    assert await judged("vip", "deep") == [
        (Level.WARN, "no live worker serves lone (1 jobs are due), vip (0 jobs are due)")
    ]
    await bench.sql("DELETE FROM threadline.workers")
    assert await judged("vip") == []  # that none is alive is told elsewhere


async def test_the_figures_by_queue_need_nothing_but_an_index(bench: Bench) -> None:
    query = bench.ledger.queries["queue_gauges"]
    async with bench.ledger.database.connection() as connection, connection.transaction():
        # The table is too small for the planner to care.
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL enable_bitmapscan = off")
        cursor = await connection.execute(b"EXPLAIN " + query.encode(), {"lease_seconds": 15.0})
        plan = "\n".join(str(line) for row in await cursor.fetchall() for line in row.values())
    assert "Index Only Scan using jobs_queue " in plan, plan


async def test_L4_a_worker_counts_on_those_only_that_serve_all_its_queues(bench: Bench) -> None:
    """Of a large fleet few look for lost messages, but of each queue's workers some."""
    seen = {
        name: sum(row["serves_ours"] for row in await bench.run("observe_workers", worker_id=name))
        for name in ("plain", "deep", "both")
    }
    assert seen == {"plain": 1, "deep": 1, "both": 0}
