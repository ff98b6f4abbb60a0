"""P4 under faults: cut connections, lost and trimmed logs, a Redis that is away; nothing is leaked."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from support.logs import KEYS, Log, log_on, shown
from support.servers import controlled_servers
from threadline.contract.events import EventId, encode_event
from threadline.errors import BackendUnavailable
from threadline.log import follow as module
from threadline.log import reader as reading
from threadline.log.feed import Subscription
from threadline.log.follow import follow
from threadline.log.position import Position

FOLLOWERS, CUTS, EVENTS = 4, 50, 3_000


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with log_on(redis_url) as made:
        yield made


async def test_P4_followers_miss_nothing_in_a_storm_of_disconnects(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.005)
    readers = [log.follow(patient=bool(n % 2)) for n in range(FOLLOWERS)]
    cuts = 0

    async def cut() -> None:
        nonlocal cuts
        for _ in range(CUTS):
            await log.heard(FOLLOWERS)
            cuts += await log.cut()

    cutting = asyncio.create_task(cut())
    numbers = itertools.count(1)
    written = ["0-1"]
    while not cutting.done() or len(written) < EVENTS:
        batch = [f"1-{next(numbers)}" for _ in range(random.randint(1, 20))]
        await log.add(*batch)
        written += batch
        # Slower than followers connect, so that the cuts meet events: a cut needs all of them subscribed.
        await asyncio.sleep(0.01)
    await cutting
    await log.add(("2-1", "succeeded"))
    assert cuts == FOLLOWERS * CUTS
    assert len(written) >= EVENTS
    for reader in readers:
        assert await reader.end() == [*written, "2-1"]


@pytest.mark.parametrize("patient", [True, False])
async def test_what_was_missed_while_cut_off_is_read_at_once(
    log: Log, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    monkeypatch.setattr(reading, "IDLE_SECONDS", 60)
    reader = log.follow(patient=patient)
    await log.add(("1-1", "started"))
    await reader.got(2)
    end = encode_event(log.event("2-1", "succeeded", prev="1-1"))
    async with log.redis.pipeline(transaction=True) as pipe:  # so that nobody is subscribed when it is published
        pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipe.xadd(log.key, {"e": end}, id="2-1")
        pipe.publish(log.key, end)
        killed, _, heard = await pipe.execute()
    assert (killed, heard) == (1, 0)
    assert await reader.end() == ["0-1", "1-1", "2-1"]


async def test_a_connection_that_subscribed_again_by_itself_is_no_reason_to_trust_it(log: Log) -> None:
    """Newer redis-py connects and subscribes again without raising: only the acknowledgement shows it."""

    class Again:
        async def get_message(self, **_: Any) -> dict[str, Any]:
            await log.add(("1-1", "cancelled"))  # published while nobody was subscribed
            return {"type": "subscribe", "channel": log.key.encode(), "data": 1}

    reader = reading.Reader(log.redis, log.key, Position(log.job_id), None)
    feed = Subscription(Again())  # type: ignore[arg-type]  # what is used of one
    async with asyncio.timeout(10):
        assert shown([event async for event in reader.connected(feed)]) == ["0-1", "1-1"]
    assert reader.done


async def test_a_redis_that_is_away_at_the_start_is_said_to_be() -> None:
    sentence = r"Redis: Error 111 connecting to 127.0.0.1:1\. .*: start Redis, or correct host and port in REDIS_URL"
    async with Redis.from_url("redis://user:hunter2@127.0.0.1:1/0") as away:
        async with asyncio.timeout(10):
            with pytest.raises(BackendUnavailable, match=sentence) as caught:
                await anext(follow(away, KEYS, "j"))
    assert "hunter2" not in str(caught.value)


async def test_a_redis_that_goes_away_and_comes_back_empty_is_waited_for() -> None:
    with controlled_servers() as servers:
        async with log_on(servers.urls.redis_url) as log:
            reader = log.follow()
            await log.add(("1-1", "started"), "1-2")
            await reader.got(3)
            await asyncio.to_thread(servers.kill_redis)
            with pytest.raises((redis.ConnectionError, OSError)):
                await log.add("1-3")
            await asyncio.to_thread(servers.restart_redis)
            await log.add("1-3", "1-4")
            await log.add(("2-1", "succeeded"))
            assert await reader.end(30) == ["0-1", "1-1", "1-2", "1-3", "1-4", "2-1"]


async def test_a_redis_that_comes_back_with_its_data_is_read_on_from_there() -> None:
    with controlled_servers() as servers:
        async with log_on(servers.urls.redis_url) as log:
            reader = log.follow()
            await log.add(("1-1", "started"), "1-2")
            await reader.got(3)
            kept = await log.redis.dump(log.key)
            await asyncio.to_thread(servers.kill_redis)
            await asyncio.to_thread(servers.restart_redis)
            # As an append-only file would have brought it back, and with what nobody could hear.
            async with log.redis.pipeline(transaction=True) as pipe:
                pipe.restore(log.key, 0, kept)
                pipe.xadd(log.key, {"e": encode_event(log.event("1-3"))}, id="1-3")
                await pipe.execute()
            await log.add(("2-1", "succeeded"))
            assert await reader.end(30) == ["0-1", "1-1", "1-2", "1-3", "2-1"]


async def connections(observer: Redis) -> set[str]:
    return {client["id"] for client in await observer.client_list()}


@pytest.mark.parametrize("moment", ["in history", "live", "between events"])
async def test_a_cancelled_follower_leaks_nothing(log: Log, redis_url: str, moment: str) -> None:
    await log.add(("1-1", "started"), *(f"1-{n}" for n in range(2, 700)))
    tasks, before = asyncio.all_tasks(), await connections(log.redis)
    async with Redis.from_url(redis_url) as client:
        stream = follow(client, KEYS, log.job_id)
        if moment == "between events":
            async for event in stream:
                if event.id == "1-3":
                    break
            await stream.aclose()
        else:
            got = asyncio.Event()

            async def read() -> None:
                async for event in stream:
                    if event.id == ("1-3" if moment == "in history" else "1-699"):
                        got.set()

            reading = asyncio.create_task(read())
            await got.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await log.heard(0)
        assert asyncio.all_tasks() == tasks
    while await connections(log.redis) != before:  # the server notices a closed socket in its own time
        await asyncio.sleep(0.002)


async def test_an_ended_follower_leaks_nothing(log: Log, redis_url: str) -> None:
    await log.add(("1-1", "cancelled"))
    tasks = asyncio.all_tasks()
    async with Redis.from_url(redis_url) as client:
        assert shown([event async for event in follow(client, KEYS, log.job_id)]) == ["0-1", "1-1"]
        await log.heard(0)
        assert asyncio.all_tasks() == tasks


# Whatever happens: what a follower yields is the log, or it says where not.

actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 12)),
        st.tuples(st.just("drop"), st.just(0)),  # a token event that Redis was too slow for
        st.tuples(st.just("epoch"), st.integers(1, 3)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("trim"), st.integers(1, 5)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("join"), st.just(0)),
        st.tuples(st.just("pause"), st.just(0)),
    ),
    max_size=25,
)


class Story:
    """Plays actions on a log; `written` is every event that was ever in it, `lossy` whether some were taken away."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.written: list[str] = []
        self.lossy = False
        self.readers = [log.follow()]
        self._epoch = 1
        self._n = 0

    async def play(self, steps: list[tuple[str, int]]) -> None:
        for name, amount in [("add", 1), *steps]:
            await getattr(self, name)(amount)
        await self._transition("succeeded", 1)

    async def _write(self, *events: tuple[str, str]) -> None:
        answer = await self.log.add(*events)
        if answer.before is None:
            self.written.append("0-1")
        self.written += [event_id for event_id, _ in events]

    async def add(self, amount: int) -> None:
        events = []
        for _ in range(amount):
            self._n += 1
            events.append((f"{self._epoch}-{self._n}", "started" if self._n == 1 else "updates"))
        await self._write(*events)

    async def drop(self, _: int) -> None:
        self._n += 1
        self.lossy = True

    async def _transition(self, kind: str, by: int) -> None:
        self._epoch += by
        self._n = 1
        await self._write((f"{self._epoch}-1", kind))

    async def epoch(self, by: int) -> None:
        await self._transition("resumed", by)

    async def cut(self, _: int) -> None:
        await self.log.cut()

    async def trim(self, keep: int) -> None:
        await self.log.redis.xtrim(self.log.key, maxlen=keep, approximate=False)
        self.lossy = True

    async def lose(self, _: int) -> None:
        await self.log.redis.delete(self.log.key)
        self.lossy = True

    async def join(self, _: int) -> None:
        self.readers.append(self.log.follow())

    async def pause(self, _: int) -> None:
        await asyncio.sleep(0.003)


def check(told: list[Any], written: list[str], *, lossy: bool) -> None:
    """What was told is what was written, in order and once; where something is left out, a gap stands there."""
    order = sorted({*written}, key=EventId.parse)
    assert told[-1] == order[-1]
    last: str | None = None
    gap: Any = None
    for item in told:
        if isinstance(item, tuple):
            assert lossy, f"nothing was lost, but {item} is told"
            assert item[1] == last
            gap = item
            continue
        assert last is None or EventId.parse(item) > EventId.parse(last)
        if gap is not None:
            assert gap[2] == item
        else:
            before = order[: order.index(item)]
            assert before[-1:] == [last] * (last is not None), f"{last} … {item} without a gap"
        last, gap = item, None


@settings(max_examples=max(settings().max_examples // 2, 5), deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=actions)
def test_P4_what_a_follower_tells_is_the_log_or_it_says_where_not(redis_url: str, steps: list[tuple[str, int]]) -> None:
    async def tell() -> None:
        async with log_on(redis_url) as log:
            story = Story(log)
            await story.play(steps)
            for reader in story.readers:
                check(await reader.end(), story.written, lossy=story.lossy)

    with asyncio.Runner() as runner:
        runner.run(tell())
