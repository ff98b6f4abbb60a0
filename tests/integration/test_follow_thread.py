"""A thread's follower tells every event of every job once, job by job, or a gap; it goes on from one position."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.ledger import Bench, bench_on, cloned, emptied
from support.logs import KEYS, Reader
from support.servers import controlled_servers
from support.threads import Stage, stage_on, told
from threadline import BackendUnavailable, Client, InvalidJob, JobNotFound, ThreadOwnedByAnother
from threadline.contract.states import State
from threadline.log import follow as connecting
from threadline.log import reader as reading
from threadline.log import thread as module
from threadline_worker.embedded import ServerUrls


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared)) as made:
        yield made


@pytest.fixture
async def stage(bench: Bench, redis_url: str) -> AsyncIterator[Stage]:
    async with stage_on(bench, redis_url) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again after milliseconds instead of seconds."""
    monkeypatch.setattr(reading, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(reading, "ENDING_SECONDS", 0.02)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(connecting, "RECONNECT_SECONDS", 0.005)


async def caught_up(reader: Reader, expected: list[str]) -> None:
    """It told exactly this; a surplus would come before what is told next, so tests go on after it."""
    await reader.got(len(expected))
    assert told(reader) == expected


# With a ledger


async def test_P4_history_of_all_jobs_then_live_then_new_jobs(stage: Stage) -> None:
    first, second = await stage.whole(2), await stage.whole(1, State.FAILED)
    reader = stage.follow()
    await caught_up(reader, stage.expected())
    assert told(reader)[:2] == [f"{first}/0-1", f"{first}/1-1"]
    assert told(reader)[-1] == f"{second}/2-1"
    third = await stage.start(await stage.enqueue())
    await caught_up(reader, stage.expected())
    await stage.step(third)
    await caught_up(reader, stage.expected())
    await stage.end(third)
    await stage.whole()
    await caught_up(reader, stage.expected())


async def test_a_job_that_waits_is_told_when_its_turn_has_come(stage: Stage) -> None:
    reader = stage.follow()
    first = await stage.start(await stage.enqueue())
    second, third = await stage.enqueue(), await stage.enqueue()
    await stage.cancel(third)  # ends while the first one runs
    await stage.step(first)
    await caught_up(reader, [f"{first}/{n}" for n in ("0-1", "1-1", "1-2")])
    await stage.end(first)
    await stage.start(second)
    await stage.end(second)
    await caught_up(reader, stage.expected())
    assert [event.job_id for event in reader.events] == [first] * 4 + [third] * 2 + [second] * 3


async def test_a_job_that_is_not_due_is_passed_by_and_told_when_it_runs(stage: Stage) -> None:
    later = await stage.enqueue(run_at=datetime.now(UTC) + timedelta(hours=1))
    now = await stage.whole()
    reader = stage.follow()
    await caught_up(reader, stage.expected())
    await stage.bench.set(later, "run_at = now()")
    await stage.start(later)
    await stage.end(later)
    await caught_up(reader, stage.expected())
    assert reader.events[0].job_id == now


async def test_a_retried_job_goes_on_where_it_was(stage: Stage) -> None:
    reader = stage.follow()
    job = await stage.whole(1, State.FAILED)
    await caught_up(reader, stage.expected())
    await stage.retry(job)
    await stage.start(job)
    await stage.release(job)
    await stage.start(job)
    await stage.end(job)
    await caught_up(reader, stage.expected())
    assert "gap" not in {event.type for event in reader.events}
    late = stage.follow(f"{job}/2-1")
    await caught_up(late, stage.expected()[4:])


async def test_after_any_event_the_rest_follows(stage: Stage) -> None:
    await stage.whole(2)
    await stage.cancel(await stage.enqueue())
    await stage.whole(1, State.FAILED)
    running = await stage.start(await stage.enqueue())
    whole = stage.expected()
    readers = [stage.follow(after) for after in whole]
    for n, reader in enumerate(readers, 1):
        await caught_up(reader, whole[n:])
    await stage.end(running)
    await stage.whole()
    for n, reader in enumerate(readers, 1):
        await caught_up(reader, stage.expected()[n:])


async def test_logs_that_have_expired_are_told_at_once_as_the_ledger_has_them(stage: Stage) -> None:
    jobs = [await stage.whole(3) for _ in range(5)]
    await stage.redis.flushdb()
    reader = stage.follow()
    await reader.got(10, limit=2)  # far less than the five seconds after which a silent log is doubted
    assert told(reader) == [f"{job}/{what}" for job in jobs for what in ("gap", "2-1")]
    await stage.whole()
    await reader.got(14)
    assert told(reader)[10:] == stage.expected()[-4:]


@pytest.mark.usefixtures("impatient")
async def test_an_end_that_nobody_announced_does_not_hold_up_the_thread(stage: Stage) -> None:
    reader = stage.follow()
    job = await stage.start(await stage.enqueue())
    await stage.end(job, silently=True)
    await caught_up(reader, stage.expected())  # the ledger knows that nothing was published behind 1-1
    cancelled = await stage.enqueue()
    await stage.bench.ledger.cancel(cancelled)
    await reader.got(5)
    assert told(reader)[3:] == [f"{cancelled}/0-1", f"{cancelled}/1-1"]
    silent = await stage.start(await stage.enqueue(), silently=True)
    await stage.end(silent, silently=True)
    await reader.got(8)
    assert told(reader)[5:] == [f"{silent}/{what}" for what in ("0-1", "gap", "2-1")]
    await stage.whole()
    await reader.got(12)
    assert told(reader)[8:] == stage.expected()[-4:]


@pytest.mark.usefixtures("impatient")
async def test_P4_an_end_told_by_the_ledger_hides_no_transition_that_was_lost(stage: Stage) -> None:
    reader = stage.follow()
    job = await stage.start(await stage.enqueue())
    await reader.got(2)
    claim, _ = stage._claims.pop(job)
    await stage.bench.ledger.release(claim, "drain", log_top="1-1")  # nobody hears of 2-1
    await stage.bench.ledger.cancel(job)
    await reader.got(4)
    assert told(reader) == [f"{job}/{what}" for what in ("0-1", "1-1", "gap", "3-1")]


async def test_a_thread_that_does_not_exist_yet_is_waited_for(stage: Stage) -> None:
    reader = stage.follow(user_id="default")
    await stage.heard()
    await stage.whole()
    await caught_up(reader, stage.expected())


async def test_a_thread_of_another_user_is_refused_now_and_later(stage: Stage) -> None:
    early = stage.follow(user_id="mallory")
    await stage.heard()
    await stage.whole()
    for reader in (early, stage.follow(user_id="mallory")):
        with pytest.raises(ThreadOwnedByAnother):
            await reader.end()
        assert reader.events == []


async def test_a_position_that_is_none_is_refused(stage: Stage, bench: Bench, redis_url: str) -> None:
    job = await stage.whole()
    async with stage_on(bench, redis_url) as other:
        elsewhere = await other.whole()
    refused: list[tuple[str, type[Exception]]] = [
        ("2-1", InvalidJob),
        (7, InvalidJob),  # type: ignore[list-item]  # on purpose
        (f"{job}/", InvalidJob),
        (f"{job}/x", InvalidJob),
        ("a b/2-1", InvalidJob),
        (f"{elsewhere}/2-1", JobNotFound),
        ("unknown/2-1", JobNotFound),
    ]
    for after, error in refused:
        with pytest.raises(error):
            await stage.follow(after).end()


async def test_servers_that_are_away_at_the_start_are_said_to_be(stage: Stage) -> None:
    url = stage.bench.ledger.database.url
    async with Client(redis_url="redis://127.0.0.1:1/0", database_url=url) as client:
        with pytest.raises(BackendUnavailable, match="Redis"):
            await anext(client.thread_events(stage.thread_id))
    async with Client(redis_url=stage._url, database_url="postgresql://nobody@127.0.0.1:1/none") as client:
        with pytest.raises(BackendUnavailable, match="Postgres"):
            await anext(client.thread_events(stage.thread_id))
    async with Client(database_url=url) as client:
        with pytest.raises(BackendUnavailable, match="REDIS_URL"):
            await anext(client.thread_events(stage.thread_id))


@pytest.mark.usefixtures("impatient")
async def test_P4_nothing_is_missed_or_doubled_while_connections_are_cut(stage: Stage) -> None:
    readers = [stage.follow() for _ in range(3)]
    await stage.heard(3)
    for n in range(12):
        job = await stage.start(await stage.enqueue())
        await stage.cut()
        await stage.step(job, 10)
        if n % 3:
            await stage.heard(3)
        await stage.cut()
        await stage.step(job, 5)
        await stage.end(job)
    for reader in readers:
        await caught_up(reader, stage.expected())


@pytest.mark.usefixtures("impatient")
async def test_P4_jobs_that_end_while_redis_is_away_or_lose_their_logs_are_told_by_the_ledger(bench: Bench) -> None:
    with controlled_servers() as servers:
        async with stage_on(bench, servers.urls.redis_url) as stage:
            reader = stage.follow()
            first = await stage.start(await stage.enqueue())
            second = await stage.enqueue()
            await reader.got(2)
            await asyncio.to_thread(servers.kill_redis)
            await stage.end(first, silently=True)
            await stage.start(second, silently=True)
            await stage.end(second, silently=True)
            await reader.got(5)
            assert told(reader)[2:] == [f"{first}/2-1", f"{second}/gap", f"{second}/2-1"]
            await asyncio.to_thread(servers.restart_redis)
            await stage.whole()
            await reader.got(9)
            assert told(reader)[5:] == stage.expected()[-4:]


@pytest.mark.usefixtures("impatient")
async def test_one_connection_serves_a_thread_and_none_is_left(stage: Stage, redis_url: str) -> None:
    for _ in range(3):
        await stage.whole()
    before = len(await stage.redis.client_list())
    tasks = asyncio.all_tasks()
    for moment in range(0, 120, 3):  # cancelled at every stage of its life, the first awaits included
        async with Client(redis_url=redis_url, database_url=stage.bench.ledger.database.url) as client:
            reader = Reader(client.thread_events(stage.thread_id))
            for _ in range(moment):
                await asyncio.sleep(0)
            await reader.stop()
            assert len(await stage.redis.client_list(_type="pubsub")) <= 1
    reader = stage.follow()
    await reader.got(len(stage.expected()))
    await stage.heard()
    assert len(await stage.redis.client_list(_type="pubsub")) == 1
    await stage.close()
    async with asyncio.timeout(5):
        while len(await stage.redis.client_list()) != before:
            await asyncio.sleep(0.002)
    assert asyncio.all_tasks() == tasks


# From Redis alone


async def test_from_redis_alone_it_tells_the_jobs_that_are_heard_of(stage: Stage) -> None:
    await stage.whole()
    running = await stage.start(await stage.enqueue())
    before = stage.expected()
    reader = stage.follow(ledger=False)
    await stage.heard()
    waiting = await stage.enqueue()
    await stage.step(running)
    await stage.end(running)
    await stage.start(waiting)
    await stage.end(waiting)
    await caught_up(reader, stage.expected()[4:])  # the running job's whole log, but not the job before it
    assert len(before) == 6


@pytest.mark.usefixtures("impatient")
async def test_from_redis_alone_a_position_is_gone_on_from(stage: Stage) -> None:
    job = await stage.start(await stage.enqueue())
    running = stage.follow(f"{job}/1-1", ledger=False)
    await stage.heard()
    await stage.step(job)
    await stage.end(job)
    await stage.whole()
    await caught_up(running, stage.expected()[2:])
    over = stage.follow(f"{job}/2-1", ledger=False)
    await over.got(1)
    await stage.whole()
    await over.got(5)
    assert told(over) == ["/gap", *stage.expected()[-4:]]
    assert over.events[0].data == {"after": f"{job}/2-1", "next": None}


@pytest.mark.usefixtures("impatient")
async def test_from_redis_alone_a_cut_between_jobs_is_said(stage: Stage) -> None:
    reader = stage.follow(ledger=False)
    await stage.heard()
    job = await stage.start(await stage.enqueue())
    await stage.step(job)
    await reader.got(3)
    await stage.cut()
    await stage.heard()
    await stage.step(job)
    await stage.end(job)  # it ran all the while: nothing can have been missed
    await caught_up(reader, stage.expected())
    await stage.cut()
    await stage.heard()
    await reader.got(6)
    assert told(reader)[-1] == "/gap"
    await stage.whole()
    await reader.got(10)
    assert told(reader)[6:] == stage.expected()[5:]


@pytest.mark.usefixtures("impatient")
async def test_from_redis_alone_a_job_whose_end_was_lost_does_not_hold_up_the_thread(stage: Stage) -> None:
    job = await stage.start(await stage.enqueue())
    reader = stage.follow(f"{job}/1-1", ledger=False)
    await stage.heard()
    await stage.end(job, silently=True)
    await stage.redis.delete(KEYS.events(job))
    await stage.whole()
    await reader.got(5)
    assert told(reader) == [f"{job}/gap", *stage.expected()[3:]]


# Whatever happens

_ACTIONS = "enqueue start step step end fail ask cancel give_up retry undo release cut join"
actions = st.lists(st.sampled_from(_ACTIONS.split()), max_size=30)


class Story:
    """Does what is possible of a list of actions; followers join at the beginning or behind any event told so far."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.readers: list[tuple[Reader, int]] = [(stage.follow(), 0)]
        self._random = random.Random(seed)
        self._order: list[str] = []
        self._queued: list[str] = []
        self._cancelled: list[str] = []
        self._running: str | None = None
        self._failed: str | None = None
        self._asking: str | None = None
        self._latest = -1

    async def play(self, names: list[str]) -> None:
        for name in names:
            await getattr(self, name)()
        await self.end()
        await self.give_up()
        while self._queued:
            await self.start()
            await self.end()

    async def enqueue(self) -> None:
        self._order.append(await self.stage.enqueue())
        self._queued.append(self._order[-1])

    async def start(self) -> None:
        if not self._running and not self._asking and self._queued:
            self._running, self._failed = await self.stage.start(self._queued.pop(0)), None
            self._latest = max(self._latest, self._order.index(self._running))

    async def step(self) -> None:
        if self._running:
            await self.stage.step(self._running, self._random.randint(1, 4))

    async def end(self, state: State = State.SUCCEEDED) -> None:
        if self._running:
            await self.stage.end(self._running, state)
            self._running, ended = None, self._running
            self._failed = ended if state is State.FAILED else None
            self._asking = ended if state is State.INTERRUPTED else None

    async def fail(self) -> None:
        await self.end(State.FAILED)

    async def ask(self) -> None:
        await self.end(State.INTERRUPTED)

    async def give_up(self) -> None:
        """Nobody answers."""
        if self._asking:
            await self.stage.cancel(self._asking)
            self._asking = None

    async def release(self) -> None:
        if self._running:
            await self.stage.release(self._running)
            await self.stage.bench.set(self._running, "run_at = now()")
            await self.stage.start(self._running)

    async def cancel(self) -> None:
        if self._queued:
            self._cancelled.append(self._queued.pop(self._random.randrange(len(self._queued))))
            await self.stage.cancel(self._cancelled[-1])

    async def retry(self) -> None:
        if self._failed and not self._running:
            await self.stage.retry(self._failed)
            self._queued.insert(0, self._failed)
            self._failed = None

    async def undo(self) -> None:
        """What was cancelled before it ran is to run all the same, in its old place."""
        possible = [job for job in self._cancelled if self._order.index(job) > self._latest]
        if possible:
            job = self._random.choice(possible)
            self._cancelled.remove(job)
            await self.stage.retry(job)
            self._queued = sorted([*self._queued, job], key=self._order.index)

    async def cut(self) -> None:
        await self.stage.cut()

    async def join(self) -> None:
        if told_so_far := self.stage.expected():
            n = self._random.randrange(len(told_so_far))
            self.readers.append((self.stage.follow(told_so_far[n]), n))


@settings(max_examples=max(settings().max_examples // 5, 5), deadline=None, suppress_health_check=list(HealthCheck))
@given(names=actions, seed=st.integers(0, 999))
@pytest.mark.usefixtures("impatient")
def test_P4_what_a_thread_tells_is_its_jobs_logs(shared: str, redis_url: str, names: list[str], seed: int) -> None:
    async def tell() -> None:
        async with bench_on(emptied(shared)) as bench, stage_on(bench, redis_url) as stage:
            story = Story(stage, seed)
            await story.play(names)
            await stage.whole()
            for reader, n in story.readers:
                first = n + 1 if reader is not story.readers[0][0] else 0
                await caught_up(reader, stage.expected()[first:])

    with asyncio.Runner() as runner:
        runner.run(tell())
