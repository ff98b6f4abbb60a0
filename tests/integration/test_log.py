"""P1, P2: an append writes and publishes or does neither, is harmless when repeated, and refuses a stale epoch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from redis import exceptions
from redis.asyncio import Redis

from support.logs import KEYS, Log, log_on
from threadline.contract.events import EventId
from threadline.log.append import Verdict

APPENDED, THERE, STALE = Verdict.APPENDED, Verdict.ALREADY_THERE, Verdict.STALE


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with log_on(redis_url) as made:
        yield made


async def prevs(log: Log) -> dict[str, str | None]:
    """What each event of the log says came before it; those that say nothing are left out."""
    found = {}
    for _, fields in await log.redis.xrange(log.key):
        event = json.loads(fields[b"e"])
        if "prev" in event:
            found[event["id"]] = event["prev"]
    return found


async def test_P1_queued_is_put_first_by_whoever_appends_first(log: Log) -> None:
    answer = await log.add(("1-1", "started"))
    assert (answer.before, answer.verdicts, answer.stale) == (None, [APPENDED], False)
    assert await log.entries() == ["0-1", "1-1"]
    await log.add(("2-1", "released"))
    assert await log.entries() == ["0-1", "1-1", "2-1"]


async def test_P1_a_producer_announces_queued_itself_once(log: Log) -> None:
    assert (await log.add(("0-1", "queued"), queued=False)).verdicts == [APPENDED]
    assert (await log.add(("0-1", "queued"), queued=False)).verdicts == [THERE]
    await log.add(("1-1", "started"))
    assert (await log.add(("0-1", "queued"), queued=False)).verdicts == [STALE]
    assert await log.entries() == ["0-1", "1-1"]


async def test_P2_every_transition_names_the_logs_last_id_before_it(log: Log) -> None:
    await log.add(("1-1", "started"), "1-2", "1-3")
    await log.add("1-4")
    await log.add(("3-1", "resumed"), "3-2")
    assert await prevs(log) == {"1-1": "0-1", "3-1": "1-4"}


async def test_P2_a_transition_that_finds_its_log_lost_says_so(log: Log) -> None:
    await log.add(("3-1", "resumed"))
    assert await log.entries() == ["0-1", "3-1"]
    assert await prevs(log) == {"3-1": None}  # not 0-1: two transitions and their steps lie between


async def test_P2_the_first_event_of_a_log_without_queued_has_nothing_before_it(log: Log) -> None:
    await log.add(("1-1", "started"), queued=False)
    assert await prevs(log) == {"1-1": None}


async def test_P2_repeating_a_call_whose_answer_was_lost_is_harmless(log: Log) -> None:
    await log.add(("1-1", "started"), "1-2")
    before = await log.redis.xrange(log.key)
    answer = await log.add(("1-1", "started"), "1-2")
    assert (answer.verdicts, answer.before) == ([THERE, THERE], EventId(1, 2))
    assert await log.redis.xrange(log.key) == before
    assert (await log.add("1-2", "1-3", "1-4")).verdicts == [THERE, APPENDED, APPENDED]
    assert await log.entries() == ["0-1", "1-1", "1-2", "1-3", "1-4"]


async def test_P2_a_lower_epoch_is_refused(log: Log) -> None:
    await log.add(("2-1", "resumed"))
    before = await log.redis.xrange(log.key)
    answer = await log.add("1-7", "1-8")
    assert (answer.verdicts, answer.stale, answer.before) == ([STALE, STALE], True, EventId(2, 1))
    assert await log.redis.xrange(log.key) == before


async def test_P2_numbers_are_compared_as_numbers(log: Log) -> None:
    await log.add("9-9", queued=False)
    assert (await log.add("9-10")).verdicts == [APPENDED]
    assert (await log.add("10-1")).verdicts == [APPENDED]
    assert (await log.add("9-11")).stale
    assert await log.entries() == ["9-9", "9-10", "10-1"]


async def test_P2_a_hole_that_a_dropped_token_left_is_kept(log: Log) -> None:
    await log.add(("1-1", "started"))
    assert (await log.add("1-3")).verdicts == [APPENDED]
    assert await log.entries() == ["0-1", "1-1", "1-3"]


async def test_P1_both_channels_get_the_very_json_of_the_stream(log: Log, redis_url: str) -> None:
    channels = [log.key, KEYS.thread(log.thread_id)]
    async with Redis.from_url(redis_url) as subscriber, subscriber.pubsub() as heard:
        await heard.subscribe(*channels)
        for _ in channels:
            assert (await heard.get_message(timeout=5))["type"] == "subscribe"
        await log.add(("1-1", "started"), "1-2")
        await log.add(("1-1", "started"), "1-2")  # already there: not published again
        await log.add("0-1")  # stale: not published
        await log.add("1-3")
        messages = [await heard.get_message(timeout=5) for _ in range(8)]
        assert await heard.get_message(timeout=0.05) is None
    stream = [fields[b"e"] for _, fields in await log.redis.xrange(log.key)]
    for channel in channels:
        assert [message["data"] for message in messages if message["channel"].decode() == channel] == stream
    assert [json.loads(text)["id"] for text in stream] == ["0-1", "1-1", "1-2", "1-3"]


async def test_a_log_is_bounded_and_expires(redis_url: str) -> None:
    async with log_on(redis_url, max_events=100, ttl_seconds=60) as log:
        for start in range(2, 1_002, 50):
            await log.add(*(f"1-{n}" for n in range(start, start + 50)))
        # Redis trims whole nodes of a hundred.
        assert 100 <= await log.redis.xlen(log.key) < 250
        assert 0 < await log.redis.ttl(log.key) <= 60
        await log.redis.persist(log.key)
        await log.add("1-1001")  # already there
        assert 0 < await log.redis.ttl(log.key) <= 60


async def test_racing_writers_of_two_epochs_leave_the_higher_one_on_top(log: Log) -> None:
    async def write(epoch: int) -> list[Verdict]:
        answers = [await log.add(f"{epoch}-{n}", queued=False) for n in range(1, 60)]
        return [answer.verdicts[0] for answer in answers]

    old, new = await asyncio.gather(write(1), write(2))
    assert new == [APPENDED] * 59
    assert old == sorted(old, reverse=True)  # appended, then stale for ever
    assert await log.entries() == [f"1-{n + 1}" for n in range(old.count(APPENDED))] + [f"2-{n}" for n in range(1, 60)]


async def test_a_log_that_cannot_be_written_raises_and_publishes_nothing(log: Log, redis_url: str) -> None:
    await log.redis.set(log.key, "somebody else's")
    async with Redis.from_url(redis_url) as subscriber, subscriber.pubsub() as heard:
        await heard.subscribe(log.key)
        assert (await heard.get_message(timeout=5))["type"] == "subscribe"
        with pytest.raises(exceptions.ResponseError):
            await log.add("1-1")
        assert await heard.get_message(timeout=0.05) is None
