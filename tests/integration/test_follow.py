"""P4: a follower gets every event once and in order, history first, or a gap that says where not; then it ends."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ConnectionLost

from support.logs import KEYS, Log, log_on
from threadline.contract.events import Event, encode_event
from threadline.errors import BackendUnavailable
from threadline.log import reader as module

WHOLE = ["0-1", "1-1", "1-2", "1-3", "2-1", "3-1", "3-2", "4-1"]


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with log_on(redis_url) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower looks into stream and ledger again after milliseconds instead of seconds."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(module, "ENDING_SECONDS", 0.02)


async def whole(log: Log) -> None:
    """A job that was released, picked up and succeeded."""
    await log.add(("1-1", "started"), "1-2", "1-3")
    await log.add(("2-1", "released"))
    await log.add(("3-1", "resumed"), "3-2")
    await log.add(("4-1", "succeeded"))


async def put(log: Log, event: Event) -> None:
    """Write an event past the script: as a broken, foreign or older writer would."""
    text = encode_event(event)
    await log.redis.xadd(log.key, {"e": text}, id=event.id or "*")
    await log.redis.publish(log.key, text)


# History and live


async def test_a_late_follower_gets_everything_and_ends(log: Log) -> None:
    await whole(log)
    reader = log.follow()
    assert await reader.end() == WHOLE
    assert [event.type for event in reader.events][-1] == "succeeded"


@pytest.mark.parametrize("after", WHOLE)
async def test_after_any_position_the_rest_follows(log: Log, after: str) -> None:
    await whole(log)
    assert await log.follow(after).end() == WHOLE[WHOLE.index(after) + 1 :]


async def test_after_a_position_beyond_the_end_nothing_follows(log: Log) -> None:
    await whole(log)
    assert await log.follow("9-9").end() == []


async def test_a_follower_beyond_the_end_ends_with_the_job(log: Log) -> None:
    reader = log.follow("9-9")
    await log.heard()
    await whole(log)
    assert await reader.end() == []


async def test_P4_history_first_then_live(log: Log) -> None:
    await log.add(("1-1", "started"), "1-2")
    reader = log.follow()
    assert await reader.got(3) == ["0-1", "1-1", "1-2"]
    await log.add("1-3")
    assert await reader.got(4) == ["0-1", "1-1", "1-2", "1-3"]
    await log.add(("2-1", "failed"))
    assert await reader.end() == ["0-1", "1-1", "1-2", "1-3", "2-1"]


async def test_a_follower_may_come_before_the_first_event(log: Log) -> None:
    reader = log.follow()
    await log.heard()
    await whole(log)
    assert await reader.end() == WHOLE


async def test_history_longer_than_a_page(log: Log) -> None:
    await log.add(("1-1", "started"), *(f"1-{n}" for n in range(2, 1_301)))
    await log.add(("2-1", "succeeded"))
    assert await log.follow().end() == ["0-1", *(f"1-{n}" for n in range(1, 1_301)), "2-1"]


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "interrupted"])
async def test_each_end_ends_it(log: Log, end: str) -> None:
    reader = log.follow()
    await log.heard()
    await log.add(("1-1", end))
    assert await reader.end() == ["0-1", "1-1"]


async def test_P4_an_end_that_a_retry_follows_is_none(log: Log) -> None:
    await log.add(("1-1", "started"))
    await log.add(("2-1", "failed"))
    await log.add(("3-1", "retried"))
    reader = log.follow()
    assert await reader.got(4) == ["0-1", "1-1", "2-1", "3-1"]
    await log.add(("4-1", "resumed"))
    await log.add(("5-1", "succeeded"))
    assert await reader.end() == ["0-1", "1-1", "2-1", "3-1", "4-1", "5-1"]


async def test_a_follower_of_an_ended_job_that_is_retried_goes_on_from_its_end(log: Log) -> None:
    await log.add(("1-1", "failed"))
    await log.add(("2-1", "retried"))
    reader = log.follow("1-1")
    assert await reader.got(1) == ["2-1"]
    await log.add(("3-1", "cancelled"))
    assert await reader.end() == ["2-1", "3-1"]


# Gaps


async def test_a_trimmed_log_says_what_is_missing(log: Log) -> None:
    await log.add(("1-1", "started"), *(f"1-{n}" for n in range(2, 11)))
    await log.add(("2-1", "succeeded"))
    await log.redis.xtrim(log.key, maxlen=3, approximate=False)
    assert await log.follow().end() == [("gap", None, "1-9"), "1-9", "1-10", "2-1"]
    assert await log.follow("1-4").end() == [("gap", "1-4", "1-9"), "1-9", "1-10", "2-1"]
    assert await log.follow("1-8").end() == ["1-9", "1-10", "2-1"]
    assert await log.follow("1-9").end() == ["1-10", "2-1"]


async def test_a_gap_is_an_event_of_this_job_without_an_id(log: Log) -> None:
    await log.add("1-5", queued=False)
    await log.add(("2-1", "succeeded"))
    reader = log.follow()
    await reader.end()
    gap = reader.events[0]
    assert (gap.type, gap.id, gap.job_id, gap.thread_id) == ("gap", None, log.job_id, log.thread_id)
    assert gap.data == {"after": None, "next": "1-5"}


@pytest.mark.parametrize("stranger", ["another", "x\x1b[2J", ""])
async def test_what_is_no_event_of_this_job_is_nobodys(log: Log, stranger: str) -> None:
    reader = log.follow()
    await log.heard()
    foreign = replace(log.event("1-1", "succeeded"), job_id=stranger)
    await log.redis.publish(log.key, encode_event(foreign))
    await put(log, log.event("0-1", "queued"))
    await put(log, foreign)
    await put(log, log.event("2-1", "succeeded", prev="0-1"))
    assert await reader.end() == ["0-1", "2-1"]
    assert await log.follow("1-1").end() == [("gap", "1-1", "2-1"), "2-1"]


async def test_a_dropped_event_leaves_a_gap_live_and_later(log: Log) -> None:
    live = log.follow()
    await log.heard()
    await log.add(("1-1", "started"), "1-2")
    await log.add("1-4")
    await log.add(("2-1", "succeeded"))
    told = ["0-1", "1-1", "1-2", ("gap", "1-2", "1-4"), "1-4", "2-1"]
    assert await live.end() == told
    assert await log.follow().end() == told


async def test_P4_an_end_that_was_read_as_the_connection_broke_is_told(log: Log, monkeypatch) -> None:
    """The stream is read on behind the end, for a retry may follow; there the connection is lost."""
    await log.add(("1-1", "started"), "1-2")
    await log.add(("2-1", "succeeded"))
    real, calls = Redis.xrange, itertools.count(1)

    def broken_once(*args: Any, **more: Any) -> Any:
        if next(calls) == 2:
            raise ConnectionLost("cut")
        return real(*args, **more)

    monkeypatch.setattr(Redis, "xrange", broken_once)
    assert await log.follow().end() == ["0-1", "1-1", "1-2", "2-1"]
    assert next(calls) > 2


async def test_P2_a_wrong_prev_is_a_gap(log: Log) -> None:
    await log.add(("1-1", "started"), "1-2")
    await put(log, log.event("3-1", "resumed", prev="1-9"))
    await log.add(("4-1", "succeeded"))
    assert await log.follow().end() == ["0-1", "1-1", "1-2", ("gap", "1-2", "3-1"), "3-1", "4-1"]


async def test_P2_a_jump_in_steps_is_a_gap(log: Log) -> None:
    await log.add(("1-1", "started"))
    await log.add("1-2", step=1)
    await log.add(("3-1", "resumed"), step=4)  # three steps were committed that nobody was shown
    await log.add(("4-1", "succeeded"))
    assert await log.follow().end() == ["0-1", "1-1", "1-2", ("gap", "1-2", "3-1"), "3-1", "4-1"]


async def test_P2_tokens_of_a_step_do_not_prove_that_its_end_was_shown(log: Log) -> None:
    await log.add(("1-1", "started"))
    await log.add("1-2", step=1)
    await log.add(("1-3", "messages"), step=2)
    await log.add(("3-1", "resumed"), step=2)  # step 2 was committed, and its updates never arrived
    await log.add(("4-1", "succeeded"))
    assert await log.follow().end() == ["0-1", "1-1", "1-2", "1-3", ("gap", "1-3", "3-1"), "3-1", "4-1"]


@pytest.mark.parametrize("step", [0, 1])
async def test_a_step_that_runs_again_is_none(log: Log, step: int) -> None:
    await log.add(("1-1", "started"))
    await log.add("1-2", step=1)
    await log.add(("3-1", "resumed"), step=step)
    await log.add(("4-1", "succeeded"))
    assert await log.follow().end() == ["0-1", "1-1", "1-2", "3-1", "4-1"]


async def test_a_log_lost_in_mid_stream_goes_on_without_a_hole(log: Log) -> None:
    reader = log.follow()
    await log.heard()
    await log.add(("1-1", "started"), "1-2")
    await reader.got(3)
    await log.redis.flushdb()
    await log.add("1-3")
    await log.add(("2-1", "succeeded"))
    assert await reader.end() == ["0-1", "1-1", "1-2", "1-3", "2-1"]
    assert await log.follow().end() == [("gap", None, "1-3"), "1-3", "2-1"]


async def test_a_log_lost_between_two_epochs_is_a_gap_for_all(log: Log) -> None:
    reader = log.follow()
    await log.heard()
    await log.add(("1-1", "started"), "1-2")
    await reader.got(3)
    await log.redis.flushdb()
    await log.add(("3-1", "resumed"))
    await log.add(("4-1", "succeeded"))
    assert await reader.end() == ["0-1", "1-1", "1-2", ("gap", "1-2", "3-1"), "3-1", "4-1"]
    assert await log.follow().end() == ["0-1", ("gap", "0-1", "3-1"), "3-1", "4-1"]
    await log.redis.xtrim(log.key, maxlen=2, approximate=False)
    assert await log.follow().end() == [("gap", None, "3-1"), "3-1", "4-1"]


# What is not ours


FOREIGN: list[bytes] = [
    b"",
    b"hello",
    b"\xff\xfe",
    b'{"job_id":"\xff"}',
    b"[]",
    json.dumps({"job_id": "j", "thread_id": "t", "type": "updates"}).encode(),
    json.dumps({"job_id": "j", "thread_id": "t", "type": "succeeded", "id": "soon"}).encode(),
    json.dumps({"job_id": "j", "thread_id": "t", "type": "gap", "id": None}).encode(),
]


async def test_what_others_publish_or_write_is_passed_over(log: Log) -> None:
    live = log.follow()
    await log.heard()
    await log.add(("1-1", "started"))
    for n, text in enumerate(FOREIGN):
        await log.redis.publish(log.key, text)
        await log.redis.xadd(log.key, {"e" if n % 2 else "x": text}, id=f"1-{n + 2}")
    await log.redis.xadd(log.key, {"e": encode_event(log.event("1-1"))}, id="1-50")  # somebody else's copy
    await log.add(("2-1", "succeeded"))
    # The foreign entries take positions, which shows as a gap.
    told = ["0-1", "1-1", ("gap", "1-1", "2-1"), "2-1"]
    assert await live.end() == told
    assert await log.follow().end() == told


async def test_a_page_of_foreign_entries_does_not_hide_what_follows(log: Log) -> None:
    async with log.redis.pipeline() as pipe:
        for n in range(1, 602):
            pipe.xadd(log.key, {"x": "y"}, id=f"1-{n}")
        await pipe.execute()
    await log.add(("2-1", "succeeded"))
    assert await log.follow().end() == [("gap", None, "2-1"), "2-1"]


async def test_unknown_types_and_fields_pass_on(log: Log) -> None:
    text = (
        b'{"v":1,"id":"1-2","job_id":"%b","thread_id":"t","type":"thoughts","ns":[],"data":{"a":1},"more":[1]}'
        % log.job_id.encode()
    )
    await log.add(("1-1", "started"))
    await log.redis.xadd(log.key, {"e": text}, id="1-2")
    await log.add(("2-1", "succeeded"))
    reader = log.follow()
    assert await reader.end() == ["0-1", "1-1", "1-2", "2-1"]
    assert (reader.events[2].type, reader.events[2].data) == ("thoughts", {"a": 1})


# The ledger's word


class Ledger:
    """What `ending` asks: `end` is the job's terminal event once it has ended; `away` a Postgres that is not there."""

    def __init__(self) -> None:
        self.end: Event | None = None
        self.away = False
        self.asked = 0

    async def __call__(self) -> Event | None:
        self.asked += 1
        if self.away:
            raise BackendUnavailable("Postgres: gone")
        return self.end


@pytest.mark.usefixtures("impatient")
async def test_it_ends_with_the_job_although_the_log_is_lost(log: Log) -> None:
    ledger = Ledger()
    reader = log.follow(ending=ledger)
    await log.heard()
    await log.add(("1-1", "started"), "1-2")
    await reader.got(3)
    await log.redis.flushdb()
    ledger.end = log.event("2-1", "succeeded", data={"result": 1})
    assert await reader.end() == ["0-1", "1-1", "1-2", ("gap", "1-2", "2-1"), "2-1"]
    assert reader.events[-1].data == {"result": 1}


async def test_P4_who_comes_after_the_log_has_expired_is_told_the_end_at_once(log: Log) -> None:
    ledger = Ledger()
    ledger.end = log.event("2-1", "failed")
    # Far less than the five seconds after which a silent log is doubted.
    assert await log.follow(ending=ledger).end(2) == [("gap", None, "2-1"), "2-1"]
    assert await log.follow("1-4", ending=ledger).end(2) == [("gap", "1-4", "2-1"), "2-1"]
    assert await log.follow("2-1", ending=ledger).end(2) == []


@pytest.mark.usefixtures("impatient")
async def test_the_log_has_the_first_word_on_the_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDING_SECONDS", 10.0)
    ledger = Ledger()
    reader = log.follow(ending=ledger)
    async with asyncio.timeout(10):
        while not ledger.asked:  # at once: there is no log yet
            await asyncio.sleep(0.002)
        ledger.end, before = log.event("2-1", "succeeded", data="the ledger's"), ledger.asked
        while ledger.asked == before:  # when nothing has come for a while
            await asyncio.sleep(0.002)
    await log.add(("1-1", "started"), "1-2")
    await log.add(("2-1", "succeeded"))
    assert await reader.end() == ["0-1", "1-1", "1-2", "2-1"]
    assert reader.events[-1].data is None


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_is_away_ends_no_follower(log: Log) -> None:
    ledger = Ledger()
    ledger.away = True
    reader = log.follow(ending=ledger)
    await log.add(("1-1", "started"))
    await reader.got(2)
    async with asyncio.timeout(10):
        while ledger.asked < 3:
            await asyncio.sleep(0.002)
    await log.add(("2-1", "succeeded"))
    assert await reader.end() == ["0-1", "1-1", "2-1"]


@pytest.mark.usefixtures("impatient")
async def test_P4_an_idle_follower_reads_again_what_was_never_published(log: Log) -> None:
    reader = log.follow()
    await log.heard()
    await log.redis.xadd(log.key, {"e": encode_event(log.event("0-1", "queued"))}, id="0-1")
    await log.redis.xadd(log.key, {"e": encode_event(log.event("1-1", "cancelled", prev="0-1"))}, id="1-1")
    assert await reader.end() == ["0-1", "1-1"]


# The channels are for anyone with a Redis client


async def test_a_plain_subscribe_over_a_socket_gets_json(log: Log, redis_url: str) -> None:
    """As `redis-cli SUBSCRIBE`: bytes over TCP, no library."""
    url = urlsplit(redis_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"AUTH {url.password}\r\nSUBSCRIBE {log.key}\r\n".encode())
    assert await reader.readline() == b"+OK\r\n"
    acknowledged = [await reader.readline() for _ in range(6)]
    assert acknowledged[2] == b"subscribe\r\n"
    await whole(log)
    got = []
    for _ in WHOLE:
        assert [await reader.readline() for _ in range(3)] == [b"*3\r\n", b"$7\r\n", b"message\r\n"]
        *_, size = [await reader.readline() for _ in range(3)]
        got.append(json.loads(await reader.readexactly(int(size[1:]))))
        await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert [event["id"] for event in got] == WHOLE
    assert got == [json.loads(fields[b"e"]) for _, fields in await log.redis.xrange(log.key)]


async def test_a_plain_subscriber_of_a_thread_gets_json(log: Log, redis_url: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as plain, plain.pubsub() as heard:
        await heard.subscribe(KEYS.thread(log.thread_id))
        await heard.get_message(timeout=5)
        await whole(log)
        got: list[Any] = [json.loads((await heard.get_message(timeout=5))["data"]) for _ in WHOLE]
    assert [event["id"] for event in got] == WHOLE
    assert {"v", "id", "job_id", "thread_id", "type", "ns", "data", "at"} <= set(got[2])
    assert got[1]["prev"] == "0-1"
