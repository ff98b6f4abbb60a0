"""The short form of the chaos suite: real processes, real servers, fixed seeds; `make chaos` is the long one.

Each test ends with the judgement of all eight invariants of `support.chaos_invariants`; what it asserts beside them is
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from support.chaos_failpoints import CRASHED, POINTS
from support.chaos_graph import true_time
from support.chaos_leaks import queue_is_empty
from support.chaos_load import Accepted
from support.chaos_processes import Slot
from support.chaos_run import HEARTBEAT, Arena, arena, report, run
from support.chaos_schedule import DECK
from support.fault_proxy import FaultProxy
from support.gates import until
from support.logs import KEYS, Reader, log_on
from threadline.log.follow import follow
from threadline.log.reader import IDLE_SECONDS
from threadline.redis_client import connect_redis
from threadline_worker.exhaustion import EXHAUSTED_EXIT

#: Postgres restarts make pools of this very process complain; that is the fault, not a finding.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
async def chaos(tmp_path: Path) -> AsyncIterator[Arena]:
    async with arena(1, workers=3, lease=2.0, folder=tmp_path) as made:
        yield made


async def judged(made: Arena, lease: float = 2.0) -> None:
    """Nothing is left open, and no invariant is violated."""
    await made.faults.heal()
    left = await made.load.told(30)
    found = await report(made, seed=1, seconds=0, leaks=[], lease=lease)
    assert not left, found.table()
    assert not found.violations, found.table()


async def started(made: Arena, thread: str, **options: int) -> tuple[Accepted, Slot]:
    """A job, and the worker that has it."""
    accepted = await made.load.enqueue(thread, **options)
    assert accepted is not None
    slot = await made.faults._worker_of(accepted)
    assert slot is not None
    return accepted, slot


async def taken_over(made: Arena, accepted: Accepted, slot: Slot) -> None:
    """Wait until another worker has the job, or had it."""
    query = "SELECT count(*) FROM public.chaos_transitions WHERE job_id = %s AND worker_after NOT LIKE %s"

    async def look() -> bool:
        rows = await made.faults._ask(query, accepted.job.job_id, f"%-{slot.pid}-%")
        return bool(rows and rows[0][0])

    await until(look, "another worker has the job", 15)


async def looked(made: Arena, slot: Slot) -> None:
    """Wait until a worker's rescuer has looked for dead workers once more: its last statement tells."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s AND query LIKE %s"
        " AND query_start > to_timestamp(%s)"
    )
    since = true_time()

    async def look() -> bool:
        rows = await made.faults._ask(query, f"threadline:%-{slot.pid}-%", "%AS progressed%", since)
        return bool(rows and rows[0][0])

    await until(look, "it has looked", 15)


async def test_a_mixture_of_all_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some twenty faults from the whole deck in less than half a minute, under load."""
    found = await run(7, 18, workers=4, lease=2.0, deck=DECK, every=1.0, folder=tmp_path)
    with capsys.disabled():
        print(f"\n{found.table()}")  # noqa: T201 - the run's closing table
    assert not found.violations, found.table()
    assert found.jobs["succeeded"] > 10


async def test_a_crash_at_every_point_between_claim_checkpoint_and_finish(chaos: Arena) -> None:
    """Where a run is between its first and its last call, also in its middle: there is something to lose only there.

    And where it asks a person: the question survives, and is asked once.
    """
    for point, steps in [
        *((p, 0) for p in POINTS),
        *((p, 4) for p in POINTS if p.startswith(("put", "writes"))),
        *((p, 13) for p in POINTS if p.startswith("writes")),
    ]:
        before = crashes(chaos)
        if not steps:
            order_crashes(chaos, point)
        asks = steps == 13 or point.startswith("finish")
        accepted = await chaos.load.enqueue(f"{point}-{steps}", rounds=2, asks=asks)
        assert accepted is not None
        if steps:
            await until(partial(has_told, accepted, steps), f"{point}: the job has made {steps} steps")
            order_crashes(chaos, point)
        await until(lambda n=before: crashes(chaos) > n, f"a crash at {point}")
        chaos.orders.withdraw_all()
    await judged(chaos)
    assert all(code == CRASHED for slot in chaos.fleet.slots for code in slot.codes)


async def test_R1_each_super_step_is_durable_before_the_next_begins(chaos: Arena) -> None:
    """The judge compares each node's beginning with the commit before it; one worker dies on the way."""
    jobs = [await chaos.load.enqueue(f"t{number}", rounds=2) for number in range(3)]
    assert jobs[0] is not None
    await until(partial(has_told, jobs[0], 4), "the job is in its middle")
    await chaos.faults._kill_the_worker_of(jobs[0])
    await judged(chaos)


def crashes(made: Arena) -> int:
    return sum(len(slot.codes) for slot in made.fleet.slots)


def order_crashes(made: Arena, point: str) -> None:
    for slot in made.fleet.slots:
        made.orders.give(slot.name, f"exit@{point}")


def has_told(accepted: Accepted, steps: int) -> bool:
    return sum(event.type == "updates" for event in accepted.events) >= steps


async def test_F1_F3_what_a_worker_does_that_was_away_for_longer_than_its_lease_changes_nothing(chaos: Arena) -> None:
    """It stands still in the middle of a write (or just before the next), the others take over, it goes on."""
    for point in ("fence.before", "put.before", "writes.after", "finish.before"):
        accepted, slot = await started(chaos, point, rounds=2)
        chaos.orders.give(slot.name, f"stop@{point}")
        await until(lambda p=point, s=slot: not chaos.orders.waits(s.name, f"stop@{p}"), "it stands still")
        await taken_over(chaos, accepted, slot)
        slot.thaw()
        await until(lambda: not chaos.load.open, "the job has ended")
    await judged(chaos)
    assert [slot.codes for slot in chaos.fleet.slots] == [[], [], []]  # they noticed, and went on


async def test_L6_a_claim_whose_answer_was_lost_is_given_back(chaos: Arena) -> None:
    accepted = await chaos.load.enqueue("t", rounds=1, delay=0.5)
    assert accepted is not None
    for slot in chaos.fleet.slots:
        # The first request of a worker that names the job is its claim.
        slot.postgres.lose_answer(accepted.job.job_id.encode())
    await until(lambda: sum(slot.postgres.answers_lost for slot in chaos.fleet.slots) > 0, "an answer was lost")
    await judged(chaos)
    ways = {(change.transition, change.code) for change in chaos.evidence().transitions}
    assert ("release", "lost_claim") in ways
    assert (await accepted.job.status()).failures == 0


async def test_F4_who_hands_on_with_a_clock_that_is_ahead_delays_nobody(chaos: Arena) -> None:
    first, _slot = await started(chaos, "t", rounds=3)
    for slot in chaos.fleet.slots:
        chaos.orders.give(slot.name, "clock", "+60")
    await chaos.load.enqueue("t", rounds=1)  # is dispatched when the first ends
    await until(lambda: first.told_all, "the first has ended")
    chaos.orders.withdraw_all()
    assert await chaos.load.told(20) == []
    await judged(chaos)


@pytest.mark.parametrize("mode", ["refuse", "blackhole"])
async def test_V3_an_outage_of_postgres_longer_than_the_lease_kills_nobody(tmp_path: Path, mode: str) -> None:
    """One worker is away last and back first: that it saw no beat of the others before and after proves nothing."""
    async with arena(1, workers=20, lease=2.0, folder=tmp_path) as made:
        for number in range(4):
            await started(made, f"t{number}", rounds=3)
        first, *others = made.fleet.slots
        for slot in others:
            await slot.postgres.set("blackhole")
        await asyncio.sleep(2.5 * HEARTBEAT)  # it has looked at them since their last beat
        await first.postgres.set(mode)
        await asyncio.sleep(2.0 * 1.3)
        await first.postgres.set("pass")
        await looked(made, first)
        await judged(made)
        evidence = made.evidence()
        assert evidence.workers_lost == []
        assert [change for change in evidence.transitions if change.transition == "rescue"] == []


async def test_V1_a_tool_that_blocks_the_loop_for_longer_than_the_lease_is_not_taken_over(chaos: Arena) -> None:
    """Its neighbours on the loop wait, and lose nothing either."""
    jobs = [await chaos.load.enqueue(f"t{number}", rounds=3) for number in range(4)]
    slot = await chaos.faults._worker_of(next(job for job in jobs if job))
    assert slot is not None
    assert await chaos.faults._taken(slot, "block", "3.5")
    await judged(chaos)
    assert chaos.evidence().workers_lost == []
    assert {change.transition for change in chaos.evidence().transitions} == {"enqueue", "claim", "finish"}


async def test_F1_who_holds_the_gil_past_the_lease_is_replaced_and_changes_nothing(chaos: Arena) -> None:
    """Not even the beat runs; afterwards it notices, and goes on."""
    accepted, slot = await started(chaos, "t", rounds=3)
    assert await chaos.faults._taken(slot, "gil", "4.5")
    await taken_over(chaos, accepted, slot)
    await judged(chaos)
    assert slot.codes == []


async def test_L7_a_memory_bomb_is_found_out_and_its_neighbours_only_restart(chaos: Arena) -> None:
    """Under a limit on the address space, where the one who is told that there is no memory is anybody."""
    neighbours = [await chaos.load.enqueue(f"n{number}", rounds=3) for number in range(6)]
    bomb = await chaos.load.enqueue("bomb", rounds=1, poison="memory")
    assert bomb is not None
    await judged(chaos)
    status = await bomb.job.status()
    assert (status.state, status.stalls) == ("failed", 3)
    assert [(await one.job.status()).state for one in neighbours if one] == ["succeeded"] * 6
    codes = [code for slot in chaos.fleet.slots for code in slot.codes]
    assert codes, "no worker ended"
    assert set(codes) == {EXHAUSTED_EXIT}


async def test_L5_hostile_messages_are_set_aside_and_hurt_nobody(chaos: Arena) -> None:
    neighbours = [await chaos.load.enqueue(f"n{number}", rounds=2) for number in range(4)]
    await chaos.faults._hostile_messages(None)
    assert len(chaos.faults.hostile) == 7
    await queue_is_empty(chaos.control.urls.redis_url)
    await judged(chaos)
    assert all(one and one.told_all for one in neighbours)
    assert [slot.codes for slot in chaos.fleet.slots] == [[], [], []]
    reasons = {row["reason"] for row in chaos.evidence().dead_letters}
    assert len(reasons) >= 5, reasons


async def test_a_rolling_restart_under_load_loses_and_charges_nothing(chaos: Arena) -> None:
    producing = asyncio.create_task(chaos.load.run())
    for slot in chaos.fleet.slots:
        await until(lambda: len(chaos.load.open) >= 3, "there is something to do")
        slot.signal(signal.SIGTERM)
        await until(lambda s=slot: bool(s.codes and s.started.is_set()), "it was started again")
    producing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await producing
    await judged(chaos)
    assert [slot.codes for slot in chaos.fleet.slots] == [[0], [0], [0]]
    rescues = [change for change in chaos.evidence().transitions if change.transition == "rescue"]
    assert rescues == []


@pytest.mark.parametrize("way", ["kill", "cancel"])
async def test_O4_a_rollback_leaves_nothing_of_the_job_whatever_happens_meanwhile(chaos: Arena, way: str) -> None:
    first = await chaos.load.enqueue("t", rounds=1)
    second, slot = await started(chaos, "t", rounds=3)
    await until(partial(has_told, second, 4), "it has done something")
    third = await chaos.load.enqueue("t", rounds=1, on_busy="rollback") if way == "kill" else None
    if third is None:
        await chaos.load.cancel(second, rollback=True)
    slot.signal(signal.SIGKILL)
    await judged(chaos)
    assert first is not None
    assert (await second.job.status()).state == "cancelled"


async def test_6_subscribers_see_every_event_or_a_gap_while_redis_misbehaves(chaos: Arena) -> None:
    jobs = [await chaos.load.enqueue(f"t{n}", rounds=6) for n in range(6)]

    def gaps() -> bool:
        return any(event.type == "gap" for job in jobs if job for event in job.events)

    for _ in range(20):  # until something was lost for good: published while a subscriber was cut off, then deleted
        await chaos.faults._tell_redis(lambda redis: redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
        await asyncio.sleep(0.09)
        await chaos.faults._tell_redis(lambda redis: redis.flushall())
        if gaps():
            break
    await judged(chaos)
    assert gaps()


async def test_P4_what_is_published_while_a_subscriber_arrives_reaches_it_at_once(redis_url: str) -> None:
    """Behind a slow network, where replay and subscription are far apart; the idle re-read would repair it late."""

    async def arrive(seconds: float) -> None:
        async with log_on(redis_url) as log:
            redis = connect_redis(proxy.url)
            reader = Reader(follow(redis, KEYS, log.job_id))
            try:
                await log.add(("1-1", "started"))
                await reader.got(2)
                await asyncio.sleep(seconds)
                await log.add("1-2")
                assert await reader.got(3, IDLE_SECONDS / 2) == ["0-1", "1-1", "1-2"], f"{seconds} s after its history"
            finally:
                await reader.stop()
                await redis.aclose()

    async with FaultProxy(redis_url) as proxy:
        await proxy.set("latency:0.05")
        await asyncio.gather(*(arrive(number * 0.02) for number in range(16)))
