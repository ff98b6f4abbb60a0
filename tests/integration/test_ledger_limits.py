"""L4 and L7: what is due is dispatched, what is overdue ends, and only failures and stalls are charged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from support.ledger import Bench, bench_on, cloned, emptied
from threadline import InvalidJob, ThreadMovedOn
from threadline.contract.states import State
from threadline.ledger.transition_event import event_of
from threadline_worker.embedded import ServerUrls


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared), size=10) as made:
        yield made


async def due(bench: Bench, **options: str) -> list[tuple[str, int, int]]:
    return [job[:3] for job in await bench.ledger.dispatch_due(**options)]  # type: ignore[arg-type]  # a number and a name


async def test_L4_dispatch_takes_each_due_head_once(bench: Bench) -> None:
    heads = [await bench.enqueue() for _ in range(3)]
    for job in heads:
        await bench.ledger.undispatch(job.job_id, job.dispatch_n)
    assert sorted(await due(bench)) == sorted((job.job_id, 0, 2) for job in heads)
    assert await due(bench) == []


async def test_L4_dispatch_of_an_enqueue_is_its_callers(bench: Bench) -> None:
    job = await bench.enqueue()
    assert (job.head, job.epoch, job.dispatch_n) == (True, 0, 1)
    assert await due(bench) == []


async def test_L4_dispatch_leaves_what_is_not_due_not_head_or_not_queued(bench: Bench) -> None:
    later = await bench.enqueue(run_at=datetime.now(UTC) + timedelta(minutes=1))
    assert not later.head
    running = await bench.started(thread_id="t")
    behind = await bench.enqueue(thread_id="t")
    assert not behind.head
    assert await due(bench) == []
    await bench.ledger.finish(running, State.SUCCEEDED)
    assert await due(bench, thread_id="other") == []
    assert await due(bench, thread_id="t") == [(behind.job_id, 0, 1)]
    await bench.set(later.job_id, "run_at = now()")
    assert await due(bench) == [(later.job_id, 0, 1)]


async def test_L4_dispatch_again_after_a_release_has_an_id_of_its_own(bench: Bench) -> None:
    claim = await bench.started()
    await bench.ledger.release(claim, "drain")
    assert await due(bench) == [(claim.job_id, 2, 2)]


async def test_L4_dispatch_by_many_sweeps_at_once_sends_nothing_twice(bench: Bench) -> None:
    jobs = [await bench.enqueue() for _ in range(60)]
    await bench.sql("UPDATE threadline.jobs SET dispatched_at = NULL")
    taken = await asyncio.gather(*(bench.ledger.dispatch_due(limit=20) for _ in range(10)))
    sent = [job.job_id for batch in taken for job in batch] + [job.job_id for job in await bench.ledger.dispatch_due()]
    assert sorted(sent) == sorted(job.job_id for job in jobs)


async def test_L4_dispatch_does_not_wait_for_a_row_that_another_holds(bench: Bench) -> None:
    held, free = await bench.enqueue(), await bench.enqueue()
    await bench.sql("UPDATE threadline.jobs SET dispatched_at = NULL")
    async with bench.ledger.database.connection() as other, other.transaction():
        await other.execute("SELECT FROM threadline.jobs WHERE job_id = %s FOR UPDATE", (held.job_id,))
        async with asyncio.timeout(5):
            assert await due(bench) == [(free.job_id, 0, 2)]
            assert await bench.ledger.claim(held.job_id, "w1") is None
    assert await due(bench) == [(held.job_id, 0, 2)]


async def test_L4_dispatched_long_ago_shows_what_may_be_lost(bench: Bench) -> None:
    job, claimed = await bench.enqueue(), await bench.started()
    assert await bench.ledger.dispatched_long_ago(10) == []
    for job_id in (job.job_id, claimed.job_id):
        await bench.set(job_id, "dispatched_at = now() - interval '11 seconds'")
    assert [lost[:3] for lost in await bench.ledger.dispatched_long_ago(10)] == [(job.job_id, 0, 1)]
    await bench.ledger.undispatch(job.job_id, 7)  # of another dispatch: changes nothing
    assert await due(bench) == []
    await bench.ledger.undispatch(job.job_id, 1)
    assert await due(bench) == [(job.job_id, 0, 2)]


async def test_L4_overdue_jobs_expire_unless_they_have_started(bench: Bench) -> None:
    late, begun, timely = (
        await bench.enqueue(expires=60),
        await bench.started(expires=60),
        await bench.enqueue(expires=60),
    )
    await bench.ledger.release(begun, "drain")
    for job_id in (late.job_id, begun.job_id):
        await bench.set(job_id, "expires_at = now() - interval '1 second'")
    assert [row["job_id"] for row in await bench.ledger.expire()] == [late.job_id]
    assert (await bench.ledger.snapshot(late.job_id)).status.error == {
        "code": "expired",
        "message": "the job was not started in time",
    }
    assert (await bench.row(timely.job_id))["state"] == "queued"
    assert (await bench.claim(begun.job_id)).epoch == 3


async def test_L4_running_time_is_summed_over_pickups(bench: Bench) -> None:
    claim = await bench.started(timeout=60)
    await bench.set(claim.job_id, "claimed_at = now() - interval '40 seconds'")
    await bench.ledger.release(claim, "drain")
    claim = await bench.claim(claim.job_id)
    assert 40 <= claim.running_seconds < 45
    await bench.set(claim.job_id, "claimed_at = now() - interval '15 seconds'")
    assert await bench.ledger.enforce_deadlines(1, grace=0) == []
    await bench.set(claim.job_id, "claimed_at = now() - interval '21 seconds'")
    assert await bench.ledger.enforce_deadlines(1, grace=15) == []
    [row] = await bench.ledger.enforce_deadlines(1, grace=0)
    assert (row["state"], row["code"]) == ("failed", "timeout")
    assert await bench.ledger.finish(claim, State.SUCCEEDED) is None


async def test_L4_a_job_without_a_timeout_of_its_own_has_the_workers(bench: Bench) -> None:
    claim = await bench.started()
    await bench.set(claim.job_id, "claimed_at = now() - interval '21 seconds'")
    assert await bench.ledger.enforce_deadlines(60, grace=0) == []
    assert len(await bench.ledger.enforce_deadlines(20, grace=0)) == 1


# L7


async def test_L7_the_third_failure_ends_a_job(bench: Bench) -> None:
    claim = await bench.started()
    for failures in (1, 2):
        row = await bench.ledger.release(claim, "transient", message="503", failure=True)
        assert row is not None
        assert (row["state"], row["code"], row["message"]) == ("queued", "transient", "503")
        assert (await bench.ledger.snapshot(claim.job_id)).status.error is None
        claim = await bench.claim(claim.job_id)
        assert claim.failures == failures
    row = await bench.ledger.release(claim, "transient", message="503", failure=True)
    assert row is not None
    assert (row["state"], row["epoch"]) == ("failed", 6)
    status = (await bench.ledger.snapshot(claim.job_id)).status
    assert (status.failures, status.error) == (3, {"code": "transient", "message": "503"})
    assert status.finished_at is not None


async def test_L7_drains_and_lost_claims_charge_nothing(bench: Bench) -> None:
    claim = await bench.started()
    for _ in range(5):
        await bench.ledger.release(claim, "drain")
        claim = await bench.claim(claim.job_id)
        await bench.ledger.release_lost(claim.job_id, claim.epoch, claim.worker_id)
        claim = await bench.claim(claim.job_id)
    row = await bench.row(claim.job_id)
    assert (row["state"], row["failures"], row["stalls"]) == ("running", 0, 0)


async def checkpoint(bench: Bench, thread_id: str, checkpoint_id: str, namespace: str = "") -> None:
    await bench.sql(
        "INSERT INTO threadline.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)"
        " VALUES (%s, %s, %s, '{}', '{}')",
        thread_id,
        namespace,
        checkpoint_id,
    )


async def crash(bench: Bench, job_id: str, *, checkpoint_id: str | None = None, namespace: str = "") -> tuple[str, int]:
    """The job's worker dies, before or behind a new checkpoint: state and stalls after the rescue."""
    claim = await bench.claim(job_id, await bench.worker("w3"))
    if checkpoint_id:
        await checkpoint(bench, claim.thread_id, checkpoint_id, namespace)
    [row] = await bench.rescue("w3")
    return row["state"], row["stalls"]


async def test_L7_the_third_crash_without_a_checkpoint_poisons_a_job(bench: Bench) -> None:
    job = await bench.enqueue(thread_id="t")
    await checkpoint(bench, "t", "1f0-an-earlier-jobs")
    assert [await crash(bench, job.job_id) for _ in range(2)] == [("queued", 1), ("queued", 2)]
    assert await crash(bench, job.job_id) == ("failed", 3)
    status = (await bench.ledger.snapshot(job.job_id)).status
    assert status.error == {"code": "poisoned", "message": "its worker died 3 times without a checkpoint in between"}
    assert event_of(await bench.row(job.job_id)).type == "failed"


async def test_L7_crashes_with_progress_charge_nothing(bench: Bench) -> None:
    job = await bench.enqueue(thread_id="t")
    for n in range(5):
        assert await crash(bench, job.job_id, checkpoint_id=f"1f0-{n}") == ("queued", 0)
    assert [await crash(bench, job.job_id) for _ in range(2)] == [("queued", 1), ("queued", 2)]
    # A subagent's checkpoint is progress, too.
    assert await crash(bench, job.job_id, checkpoint_id="1f0-5", namespace="tools:1") == ("queued", 0)
    await checkpoint(bench, "another", "1f0-6")
    assert await crash(bench, job.job_id) == ("queued", 1)


async def test_L7_a_retry_is_a_new_epoch_of_the_same_job_with_a_clean_slate(bench: Bench) -> None:
    claim = await bench.started(thread_id="t")
    await bench.ledger.release(claim, "transient", message="503", failure=True, limit=1)
    await bench.set(claim.job_id, "stalls = 2")
    status = await bench.ledger.retry(claim.job_id)
    assert (status.job_id, status.state, status.epoch) == (claim.job_id, "queued", 3)
    assert (status.failures, status.stalls, status.error, status.finished_at) == (0, 0, None, None)
    row = await bench.row(claim.job_id)
    assert (event_of(row).type, event_of(row).id, row["running_seconds"]) == ("retried", "3-1", 0)
    again = await bench.claim(claim.job_id)
    assert not again.first
    assert event_of(again.row).type == "resumed"


async def test_L7_a_retry_forgets_the_cancel_that_ended_the_job(bench: Bench) -> None:
    claim = await bench.started()
    await bench.ledger.cancel(claim.job_id)
    await bench.ledger.release(claim, "drain")
    await bench.ledger.retry(claim.job_id)
    assert (await bench.claim(claim.job_id)).epoch == 4


async def test_L7_a_retry_is_refused_once_a_later_job_has_started(bench: Bench) -> None:
    failed = await bench.enqueue(thread_id="t")
    await bench.end(failed.job_id, "failed")
    later = await bench.enqueue(thread_id="t")
    assert (await bench.ledger.retry(failed.job_id)).state == "queued"  # it has not started
    await bench.end(failed.job_id, "failed")
    await bench.end(later.job_id, "succeeded")
    before = await bench.row(failed.job_id)
    with pytest.raises(ThreadMovedOn, match="a later job of thread t has started: enqueue a new one instead"):
        await bench.ledger.retry(failed.job_id)
    assert await bench.row(failed.job_id) == before


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "interrupted"])
async def test_L7_only_failed_and_cancelled_jobs_are_retried(bench: Bench, state: str) -> None:
    job = await bench.enqueue()
    if state == "running":
        await bench.claim(job.job_id)
    elif state != "queued":
        await bench.end(job.job_id, state)
    with pytest.raises(InvalidJob, match=f"is {state}: only failed and cancelled jobs can be retried"):
        await bench.ledger.retry(job.job_id)


async def test_L7_of_many_retries_at_once_one_is_made(bench: Bench) -> None:
    job = await bench.enqueue()
    await bench.end(job.job_id, "failed")
    answers = await asyncio.gather(*(bench.ledger.retry(job.job_id) for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(answer, InvalidJob) for answer in answers) == 1
    assert (await bench.row(job.job_id))["epoch"] == 3
