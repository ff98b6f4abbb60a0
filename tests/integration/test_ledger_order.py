"""O1 to O3: a thread's jobs run one at a time, in the order of enqueue, and wait for its person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from support.ledger import Bench, bench_on, cloned, emptied
from threadline import ThreadBusy
from threadline.contract.states import State
from threadline.ledger.custody import Claim
from threadline_worker.embedded import ServerUrls

MINUTE = "interval '1 minute'"


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared)) as made:
        yield made


async def claimable(bench: Bench, jobs: list[Any]) -> list[int]:
    """Which of the jobs can be claimed now; what was claimed for the look is given back as it was."""
    found = []
    for number, job in enumerate(jobs):
        before = await bench.row(job.job_id)
        claim = await bench.ledger.claim(job.job_id, "w1")
        if isinstance(claim, Claim):
            found.append(number)
            await bench.set(job.job_id, "state = 'queued', worker_id = NULL, epoch = epoch - 1")
            if before["started_at"] is None:
                await bench.set(job.job_id, "started_at = NULL")
                await bench.sql("DELETE FROM threadline.job_bases WHERE job_id = %s", job.job_id)
    return found


async def test_O1_jobs_run_in_the_order_of_enqueue(bench: Bench) -> None:
    jobs = [await bench.enqueue(thread_id="t") for _ in range(4)]
    assert [job.head for job in jobs] == [True, False, False, False]
    for number, job in enumerate(jobs):
        assert await claimable(bench, jobs) == [number]
        assert [due.job_id for due in await bench.ledger.dispatch_due()] == ([job.job_id] if number else [])
        await bench.end(job.job_id, "succeeded")
    assert await claimable(bench, jobs) == []


async def test_O1_threads_do_not_wait_for_each_other(bench: Bench) -> None:
    jobs = [await bench.enqueue() for _ in range(3)]
    assert await claimable(bench, jobs) == [0, 1, 2]


async def test_O1_a_job_that_is_not_due_and_never_started_does_not_hold_the_thread(bench: Bench) -> None:
    jobs = [await bench.enqueue(thread_id="t"), await bench.enqueue(thread_id="t")]
    await bench.set(jobs[0].job_id, f"run_at = now() + {MINUTE}")
    assert await claimable(bench, jobs) == [1]
    running = await bench.claim(jobs[1].job_id)
    await bench.set(jobs[0].job_id, "run_at = now()")
    assert await claimable(bench, jobs) == []  # one at a time, also if the other should have come first
    await bench.ledger.finish(running, State.SUCCEEDED)
    assert await claimable(bench, jobs) == [0]


async def test_O1_a_job_in_backoff_holds_the_thread_and_is_not_claimed_early(bench: Bench) -> None:
    jobs = [await bench.enqueue(thread_id="t"), await bench.enqueue(thread_id="t")]
    claim = await bench.claim(jobs[0].job_id)
    row = await bench.ledger.release(claim, "transient", failure=True, delay=60)
    assert row is not None
    assert 58 < (row["run_at"] - row["transition_at"]).total_seconds() < 62
    assert await claimable(bench, jobs) == []
    assert await bench.ledger.dispatch_due() == []
    await bench.set(jobs[0].job_id, "run_at = now()")
    assert await claimable(bench, jobs) == [0]


async def test_O1_a_rescued_job_goes_on_before_later_ones(bench: Bench) -> None:
    jobs = [await bench.enqueue(thread_id="t"), await bench.enqueue(thread_id="t")]
    await bench.claim(jobs[0].job_id, "w2")
    await bench.rescue("w2")
    assert await claimable(bench, jobs) == [0]


async def test_O1_a_retried_job_takes_its_old_place(bench: Bench) -> None:
    first = await bench.enqueue(thread_id="t")
    await bench.end(first.job_id, "failed")
    jobs = [first, await bench.enqueue(thread_id="t")]
    await bench.ledger.retry(first.job_id)
    assert await claimable(bench, jobs) == [0]


async def test_O2_while_a_thread_waits_for_a_person_later_jobs_wait(bench: Bench) -> None:
    asking = await bench.enqueue(thread_id="t")
    jobs = [asking, await bench.enqueue(thread_id="t")]
    await bench.end(asking.job_id, "interrupted")
    jobs.append(await bench.enqueue(thread_id="t"))
    assert await claimable(bench, jobs) == []
    assert await bench.ledger.dispatch_due() == []


async def test_O2_only_the_resume_job_may_be_claimed_and_in_the_asking_jobs_place(bench: Bench) -> None:
    asking, later = await bench.enqueue(thread_id="t"), await bench.enqueue(thread_id="t")
    await bench.end(asking.job_id, "interrupted")
    resume = await bench.enqueue(thread_id="t")
    turn = (await bench.row(asking.job_id))["turn"]
    await bench.set(resume.job_id, f"kind = 'resume', resumes = '{asking.job_id}', turn = {turn}")
    await bench.set(asking.job_id, f"answered_by = '{resume.job_id}'")
    assert await claimable(bench, [asking, later, resume]) == [2]
    await bench.end(resume.job_id, "succeeded")
    assert await claimable(bench, [asking, later, resume]) == [1]


async def test_O2_cancelling_the_asking_job_frees_the_thread(bench: Bench) -> None:
    asking, later = await bench.enqueue(thread_id="t"), await bench.enqueue(thread_id="t")
    await bench.end(asking.job_id, "interrupted")
    assert (await bench.ledger.cancel(asking.job_id)).state == "cancelled"
    assert await claimable(bench, [asking, later]) == [1]


@pytest.mark.parametrize("state", ["queued", "running", "interrupted"])
async def test_O3_queued_running_and_waiting_are_busy(bench: Bench, state: str) -> None:
    job = await bench.enqueue(thread_id="t")
    if state == "running":
        await bench.claim(job.job_id)
    if state == "interrupted":
        await bench.end(job.job_id, state)
    with pytest.raises(ThreadBusy, match=f"thread t is busy: job {job.job_id} is {state}") as caught:
        await bench.enqueue(thread_id="t", on_busy="reject")
    assert caught.value.job_id == job.job_id


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_O3_an_ended_job_is_not_busy(bench: Bench, state: str) -> None:
    await bench.end((await bench.enqueue(thread_id="t")).job_id, state)
    assert (await bench.enqueue(thread_id="t", on_busy="reject")).head


async def test_O3_a_job_for_later_is_busy(bench: Bench) -> None:
    job = await bench.enqueue(thread_id="t")
    await bench.set(job.job_id, f"run_at = now() + {MINUTE}")
    with pytest.raises(ThreadBusy):
        await bench.enqueue(thread_id="t", on_busy="reject")


@pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
async def test_O3_interrupt_and_rollback_also_cancel_what_is_queued_or_waits(bench: Bench, on_busy: str) -> None:
    other = await bench.enqueue(thread_id="other")
    asking = await bench.enqueue(thread_id="t")
    await bench.end(asking.job_id, "interrupted")
    queued = await bench.enqueue(thread_id="t")
    new = await bench.enqueue(thread_id="t", on_busy=on_busy)
    for job in (asking, queued):
        row = await bench.row(job.job_id)
        assert (row["state"], row["code"], row["transition"]) == ("cancelled", "replaced", "cancel")
        assert row["finished_at"] is not None
    assert (await bench.row(other.job_id))["state"] == "queued"
    assert (await bench.row(new.job_id))["state"] == "queued"


@pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
async def test_O3_what_runs_is_asked_to_stop_and_the_new_job_waits_for_its_end(bench: Bench, on_busy: str) -> None:
    running = await bench.started(thread_id="t")
    new = await bench.enqueue(thread_id="t", on_busy=on_busy)
    assert not new.head
    [beat] = await bench.run("beat", worker_id="w1", draining=False)
    assert beat["owned"] == [[running.job_id, 1, "replaced", on_busy == "rollback"]]
    assert await claimable(bench, [new]) == []
    assert await bench.ledger.finish(running, State.CANCELLED, code="replaced")
    if on_busy == "interrupt":  # a rollback is done first, see test_rollback.py
        assert await claimable(bench, [new]) == [0]


async def test_a_thread_that_is_being_restored_is_claimed_by_nobody(bench: Bench) -> None:
    job = await bench.enqueue(thread_id="t")
    await bench.ledger.undispatch(job.job_id, 1)
    await bench.sql("UPDATE threadline.threads SET restoring = 'x'")
    assert await claimable(bench, [job]) == []
    assert await bench.ledger.dispatch_due() == []
    await bench.sql("UPDATE threadline.threads SET restoring = NULL")
    assert await claimable(bench, [job]) == [0]
