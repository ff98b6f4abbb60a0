"""L1, L6, L8: every transition raises the epoch, a stale epoch changes nothing, and a pending cancel wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from psycopg.rows import DictRow

from support.ledger import Bench, bench_on, cloned, emptied, record_transitions, recorded_transitions
from threadline import JobNotFound
from threadline.contract.states import State
from threadline.ledger.custody import Claim
from threadline.ledger.transition_event import event_of
from threadline_worker.embedded import ServerUrls

Act = Callable[[Bench, Claim], Awaitable[Any]]

#: Everything that a worker writes to a job that it holds.
OWNED: dict[str, Act] = {
    "finish": lambda bench, claim: bench.ledger.finish(claim, State.SUCCEEDED, result={"a": 1}),
    "interrupt": lambda bench, claim: bench.ledger.finish(claim, State.INTERRUPTED, interrupts=[{"id": "i"}]),
    "release": lambda bench, claim: bench.ledger.release(claim, "drain"),
    "fail once": lambda bench, claim: bench.ledger.release(claim, "transient", failure=True),
    "lost claim": lambda bench, claim: bench.ledger.release_lost(claim.job_id, claim.epoch, claim.worker_id),
    "checkpoint": lambda bench, claim: bench.ledger.note_checkpoint(claim, "c1"),
    "lift": lambda bench, claim: bench.ledger.lift_epoch(claim, 40),
}


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared), size=20) as made:
        yield made


@pytest.fixture
async def recording(database_url: str) -> AsyncIterator[Bench]:
    """A database of the test's own, for it changes the schema."""
    record_transitions(database_url)
    async with bench_on(database_url, size=20) as made:
        yield made


async def test_L1_every_transition_raises_the_epoch(recording: Bench, database_url: str) -> None:
    bench, ledger = recording, recording.ledger
    first = await bench.enqueue(thread_id="t")
    assert first.epoch == 0
    await ledger.release(await bench.claim(first.job_id), "drain")
    await bench.claim(first.job_id)
    await bench.rescue("w1")
    await bench.worker("w1")
    await ledger.finish(await bench.claim(first.job_id), State.FAILED, code="error", message="no")
    await ledger.retry(first.job_id)
    await ledger.cancel(first.job_id)
    made = recorded_transitions(database_url)
    assert [(step.transition, step.before, step.after) for step in made] == [
        ("claim", 0, 1),
        ("release", 1, 2),
        ("claim", 2, 3),
        ("rescue", 3, 4),
        ("claim", 4, 5),
        ("finish", 5, 6),
        ("retry", 6, 7),
        ("cancel", 7, 8),
    ]


async def test_L1_a_stale_epoch_changes_nothing(bench: Bench) -> None:
    for name, act in OWNED.items():
        stale = await bench.started("w1")
        assert await bench.ledger.release(stale, "drain")
        current = await bench.claim(stale.job_id, "w1")  # the same worker has it again: only the epoch differs
        before = await bench.row(stale.job_id)
        assert not await act(bench, stale), name
        assert await bench.row(stale.job_id) == before, name
        assert await act(bench, current), name


async def test_L1_another_worker_epoch_or_job_changes_nothing(bench: Bench) -> None:
    claim = await bench.started("w1")
    before = await bench.row(claim.job_id)
    changes: list[dict[str, Any]] = [{"worker_id": "w2"}, {"epoch": 2}, {"epoch": 0}, {"job_id": "other"}]
    for change in changes:
        for name, act in OWNED.items():
            assert not await act(bench, claim._replace(**change)), (name, change)
            assert await bench.row(claim.job_id) == before, (name, change)


async def test_L1_an_ended_job_is_written_by_nobody(bench: Bench) -> None:
    claim = await bench.started("w1")
    assert await bench.ledger.finish(claim, State.SUCCEEDED)
    # An ended job keeps its last worker; make the epoch fit, so that the state alone is left to say no.
    for name, act in OWNED.items():
        assert not await act(bench, claim._replace(epoch=claim.epoch + 1)), name


async def test_twenty_claim_a_job_and_one_has_it(bench: Bench) -> None:
    job = await bench.enqueue()
    claims = await asyncio.gather(*(bench.ledger.claim(job.job_id, f"w{n % 2 + 1}") for n in range(20)))
    assert len([claim for claim in claims if isinstance(claim, Claim)]) == 1
    assert (await bench.row(job.job_id))["epoch"] == 1


async def test_two_jobs_of_a_thread_never_run_at_once(bench: Bench) -> None:
    for _ in range(10):
        # The first becomes due just now, so that to a claim either may look like the head.
        early = await bench.enqueue(thread_id="t")
        late = await bench.enqueue(thread_id="t")
        await bench.set(early.job_id, "run_at = clock_timestamp() + interval '2 milliseconds'")
        claims = await asyncio.gather(
            *(bench.ledger.claim(job.job_id, "w1") for _ in range(6) for job in (early, late)),
        )
        got = [claim for claim in claims if isinstance(claim, Claim)]
        assert len(got) <= 1
        for job in (early, late):
            await bench.set(job.job_id, "state = 'succeeded'")


async def test_the_index_alone_keeps_a_thread_to_one_running_job(recording: Bench) -> None:
    bench = recording
    await bench.started(thread_id="t")
    waiting = await bench.enqueue(thread_id="t")
    await bench.sql(
        "CREATE OR REPLACE FUNCTION threadline.is_head(j threadline.jobs) RETURNS boolean LANGUAGE sql"
        " STABLE AS 'SELECT true'"
    )
    assert await bench.ledger.claim(waiting.job_id, "w2") is None


async def test_finish_release_and_rescue_race_and_one_wins(recording: Bench, database_url: str) -> None:
    bench = recording
    for n in range(20):
        await bench.worker("w1")
        claim = await bench.started("w1")
        acts: list[Awaitable[Any]] = [
            bench.ledger.finish(claim, State.SUCCEEDED),
            bench.ledger.release(claim, "drain"),
            bench.run("rescue", worker_id="w1", limit=3, silent_since=None),
        ]
        answers = await asyncio.gather(*(acts[n % 3 :] + acts[: n % 3]))
        assert sum(bool(answer) for answer in answers) == 1
        assert [step.after for step in recorded_transitions(database_url) if step.job_id == claim.job_id] == [1, 2]


async def test_L6_a_claim_needs_a_live_worker_that_does_not_drain(bench: Bench) -> None:
    job = await bench.enqueue()
    assert await bench.ledger.claim(job.job_id, "nobody") is None
    await bench.run("beat", worker_id="w1", draining=True)
    assert await bench.ledger.claim(job.job_id, "w1") is None
    await bench.run("beat", worker_id="w1", draining=False)
    assert isinstance(await bench.ledger.claim(job.job_id, "w1"), Claim)


async def test_L6_rescue_takes_running_jobs_of_workers_that_have_no_row(bench: Bench) -> None:
    orphan, other = await bench.started("w1"), await bench.started("w2")
    await bench.run("unregister", worker_id="w1")
    assert [row["job_id"] for row in await bench.rescue(None)] == [orphan.job_id]
    assert (await bench.row(other.job_id))["state"] == "running"


async def test_L6_the_beat_says_what_the_ledger_gives_a_worker(bench: Bench) -> None:
    claim, asked = await bench.started("w1"), await bench.started("w1")
    await bench.ledger.cancel(asked.job_id, rollback=True)
    [beat] = await bench.run("beat", worker_id="w1", draining=False)
    assert beat["alive"]
    owned = {job_id: rest for job_id, *rest in beat["owned"]}
    assert owned == {claim.job_id: [1, None, None], asked.job_id: [1, "requested", True]}
    [beat] = await bench.run("beat", worker_id="nobody", draining=False)
    assert not beat["alive"]


# L8


async def ended_by(bench: Bench, way: str, claim: Claim) -> DictRow:
    match way:
        case "release":
            return await bench.ledger.release(claim, "drain") or {}
        case "failure":
            return await bench.ledger.release(claim, "transient", failure=True, limit=1) or {}
        case _:
            return (await bench.rescue("w1", limit=1))[0]


@pytest.mark.parametrize("way", ["release", "failure", "rescue"])
async def test_L8_pending_cancel_wins(bench: Bench, way: str) -> None:
    claim = await bench.started("w1")
    assert (await bench.ledger.cancel(claim.job_id)).state == "running"
    row = await ended_by(bench, way, claim)
    assert (row["state"], row["code"], row["epoch"]) == ("cancelled", "requested", 2)
    assert event_of(row).type == "cancelled"


@pytest.mark.parametrize("end", ["claim", "sweep"])
async def test_L8_pending_cancel_wins_over_a_queued_job(bench: Bench, end: str) -> None:
    # What a cancel leaves that raced with a release: the request stands, and the job waits out its backoff.
    job = await bench.enqueue()
    await bench.sql("INSERT INTO threadline.cancel_requests (job_id, code) VALUES (%s, 'requested')", job.job_id)
    if end == "claim":
        row = await bench.ledger.claim(job.job_id, "w1")
    else:
        await bench.set(job.job_id, "run_at = now() + interval '5 minutes', started_at = now()")
        [row] = await bench.ledger.expire()
    assert isinstance(row, dict)
    assert (row["state"], row["code"]) == ("cancelled", "requested")
    assert (await bench.row(job.job_id))["epoch"] == 1


async def test_L8_a_job_whose_cancel_was_seen_at_its_first_claim_can_be_retried(bench: Bench) -> None:
    job = await bench.enqueue()
    await bench.sql("INSERT INTO threadline.cancel_requests (job_id, code) VALUES (%s, 'requested')", job.job_id)
    assert not isinstance(await bench.ledger.claim(job.job_id, "w1"), Claim)
    await bench.ledger.retry(job.job_id)
    claim = await bench.claim(job.job_id)
    assert claim.first
    assert event_of(claim.row).type == "started"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_L8_cancelling_an_ended_job_is_a_no_op_that_returns_its_state(bench: Bench, state: str) -> None:
    job = await bench.enqueue()
    await bench.end(job.job_id, state)
    before = await bench.row(job.job_id)
    assert (await bench.ledger.cancel(job.job_id)).state == state
    assert (await bench.ledger.cancel(job.job_id, rollback=True)).state == state
    assert await bench.row(job.job_id) == before
    assert await bench.sql("SELECT * FROM threadline.cancel_requests") == []


async def test_L8_a_queued_job_ends_at_once_and_a_running_one_is_asked(bench: Bench) -> None:
    queued, running = await bench.enqueue(), await bench.started("w1")
    assert (await bench.ledger.cancel(queued.job_id)).state == "cancelled"
    assert (await bench.ledger.cancel(running.job_id)).state == "running"
    [beat] = await bench.run("beat", worker_id="w1", draining=False)
    assert beat["owned"] == [[running.job_id, 1, "requested", False]]


async def test_L8_asking_does_not_wait_for_a_saver_that_holds_the_row(bench: Bench) -> None:
    claim = await bench.started("w1")
    async with bench.ledger.database.connection() as saver, saver.transaction():
        await saver.execute(
            "SELECT threadline.assert_fence(%s, %s, %s, %s)", (claim.job_id, claim.thread_id, claim.epoch, "w1")
        )
        async with asyncio.timeout(5):
            await bench.ledger.cancel(claim.job_id)
            await bench.enqueue(thread_id=claim.thread_id, on_busy="interrupt")


async def test_L8_cancel_and_claim_race_and_the_job_ends_cancelled(bench: Bench) -> None:
    for _ in range(30):
        job = await bench.enqueue()
        claim, _ = await asyncio.gather(bench.ledger.claim(job.job_id, "w1"), bench.ledger.cancel(job.job_id))
        if isinstance(claim, Claim):  # it was claimed first: the request waits for its worker
            [beat] = await bench.run("beat", worker_id="w1", draining=False)
            assert [job.job_id, 1, "requested", False] in beat["owned"]
            assert (await bench.ledger.release(claim, "drain") or {})["state"] == "cancelled"
        assert (await bench.row(job.job_id))["state"] == "cancelled"


async def test_L8_cancel_and_release_race_and_the_cancel_is_not_lost(bench: Bench) -> None:
    for _ in range(30):
        claim = await bench.started("w1")
        await asyncio.gather(bench.ledger.release(claim, "drain"), bench.ledger.cancel(claim.job_id))
        assert not isinstance(await bench.ledger.claim(claim.job_id, "w2"), Claim)
        assert (await bench.row(claim.job_id))["state"] == "cancelled"


async def test_L8_replace_and_release_race_and_nothing_escapes(bench: Bench) -> None:
    for _ in range(30):
        claim = await bench.started("w1")
        _, new = await asyncio.gather(
            bench.ledger.release(claim, "drain"), bench.enqueue(thread_id=claim.thread_id, on_busy="interrupt")
        )
        assert not isinstance(await bench.ledger.claim(claim.job_id, "w2"), Claim)
        assert (await bench.row(claim.job_id))["code"] == "replaced"
        await bench.end(new.job_id, "succeeded")


# What an answer holds


async def test_an_unknown_job_is_said_to_be_unknown(bench: Bench) -> None:
    for call in (bench.ledger.snapshot, bench.ledger.cancel, bench.ledger.retry):
        with pytest.raises(JobNotFound, match="no job nobody is known: check the id, or it was pruned"):
            await call("nobody")
    assert await bench.ledger.claim("nobody", "w1") is None
    assert await bench.ledger.transition("nobody") is None


async def test_what_a_graph_gives_or_says_is_stored_whatever_it_holds(bench: Bench) -> None:
    result = {"nul": "\0", "big": 2**70, "text": "é" * 1_000}
    claim = await bench.started("w1", input={"nul": "\0", "big": 2**70}, metadata={"nul": "\0"})
    assert claim.input == {"nul": "\0", "big": 2**70}
    assert await bench.ledger.finish(claim, State.FAILED, code="err\0or", message="a\0b\ud800c", result=result)
    snapshot = await bench.ledger.snapshot(claim.job_id)
    assert snapshot.result == result
    assert snapshot.status.metadata == {"nul": "\0"}
    assert snapshot.status.error == {"code": "err\ufffdor", "message": "a\ufffdb?c"}
    claim = await bench.started("w1")
    assert await bench.ledger.release(claim, "transient", message="\0\ud800")


async def test_P1_every_transition_is_unannounced_until_it_is_announced(bench: Bench) -> None:
    job = await bench.enqueue()
    assert await bench.ledger.unannounced(0) == []  # `queued` is put there by whoever appends first
    claim = await bench.claim(job.job_id)  # its own worker publishes it
    assert await bench.ledger.unannounced(0) == []
    await bench.ledger.finish(claim, State.SUCCEEDED, result=1)
    [row] = await bench.ledger.unannounced(0)
    assert (event_of(row).id, event_of(row).type, event_of(row).data) == ("2-1", "succeeded", {"result": 1})
    assert await bench.ledger.unannounced(60) == []
    await bench.ledger.announced(job.job_id, 1)  # a late note of an older epoch takes nothing back
    await bench.ledger.announced(job.job_id, 2)
    await bench.ledger.announced(job.job_id, 1)
    assert await bench.ledger.unannounced(0) == []


async def test_P3_a_claim_lifts_its_epoch_above_the_logs(bench: Bench) -> None:
    claim = await bench.started("w1")
    lifted = await bench.ledger.lift_epoch(claim, 40)
    assert lifted is not None
    assert (lifted.epoch, lifted.row["epoch"], lifted.first) == (41, 41, True)
    assert await bench.ledger.finish(claim, State.SUCCEEDED) is None
    assert (await bench.ledger.finish(lifted, State.SUCCEEDED) or {})["epoch"] == 42
