"""P1-P3: events go out in order and without a hole; what Redis does not take waits, and nobody waits for Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError

from support.gates import until
from threadline.contract.events import EventId
from threadline.log.append import Appended, Verdict
from threadline_worker.publisher import Publisher
from threadline_worker.telemetry.metrics import Metrics


class Log:
    """An EventLog whose Redis can be away, lose its answer, or know a higher epoch."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.calls = 0
        self.away = False
        self.answers_lost = 0
        self.stale = False

    async def append(self, _job: str, _thread: str, epoch: int, events: list[tuple[int, bytes]]) -> Appended:
        self.calls += 1
        if self.away:
            raise RedisConnectionError("away")
        if self.stale:
            return Appended(EventId(epoch + 1, 1), [Verdict.STALE] * len(events))
        known = {event["id"] for event in self.events}
        found = [json.loads(encoded) for _n, encoded in events]
        self.events += [event for event in found if event["id"] not in known]
        if self.answers_lost:
            self.answers_lost -= 1
            raise RedisConnectionError("the answer was lost")
        return Appended(None, [Verdict.APPENDED] * len(events))

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


class Case:
    def __init__(self) -> None:
        self.log = Log()
        self.fresh = True
        self.lost = 0
        self.publisher = Publisher(
            self.log,  # type: ignore[arg-type]  # stands for an EventLog
            "j",
            "t",
            3,
            metrics=Metrics(CollectorRegistry()),
            may_publish=lambda: self.fresh,
            on_stale=self.on_stale,
        )

    def on_stale(self) -> None:
        self.lost += 1

    def offer(self, *numbers: int, kind: str = "updates") -> None:
        for number in numbers:
            self.publisher.offer(kind, (), {"n": number}, number)


@pytest.fixture
async def case():
    made = Case()
    async with made.publisher:
        yield made


async def test_P1_positions_start_behind_the_transition_and_have_no_hole(case: Case) -> None:
    case.offer(*range(200))
    assert await case.publisher.flush()
    assert case.log.ids == [f"3-{n}" for n in range(2, 202)]
    assert [event["data"]["n"] for event in case.log.events] == list(range(200))
    assert case.log.events[7]["step"] == 7


async def test_P1_an_unsent_transition_goes_first(case: Case) -> None:
    case.log.away = True
    case.publisher.first(b'{"id":"3-1"}', "started")
    case.offer(0)
    await until(lambda: case.log.calls or None, "a try")
    case.log.away = False
    assert await case.publisher.flush()
    assert case.log.ids == ["3-1", "3-2"]


async def test_P2_a_batch_whose_answer_was_lost_keeps_its_positions(case: Case) -> None:
    case.log.answers_lost = 2
    case.offer(0, 1)
    assert await case.publisher.flush()
    case.offer(2)
    assert await case.publisher.flush()
    assert case.log.ids == ["3-2", "3-3", "3-4"]


async def test_steps_wait_for_redis_without_limit_and_tokens_give_way_to_a_marked_gap(case: Case) -> None:
    case.log.away = True
    case.offer(*range(3000))
    case.offer(*range(5000), kind="messages")
    await until(lambda: case.log.calls or None, "a try")
    assert not await case.publisher.flush(0.05)
    case.log.away = False
    assert await case.publisher.flush()
    assert len([event for event in case.log.events if event["type"] == "updates"]) == 3000
    tokens = [event["data"]["n"] for event in case.log.events if event["type"] == "messages"]
    assert tokens == list(range(3000, 5000))  # the oldest went
    numbers = [int(name.split("-")[1]) for name in case.log.ids]
    left_out = set(range(2, numbers[-1] + 1)) - set(numbers)
    assert len(left_out) == 1  # on purpose: readers see the hole


async def test_P2_a_stale_epoch_publishes_nothing_more_and_says_so_once(case: Case) -> None:
    case.log.stale = True
    case.offer(0)
    await case.publisher.flush()
    case.log.stale = False
    case.offer(1, 2)
    assert await case.publisher.flush()
    assert (case.log.ids, case.lost) == ([], 1)


async def test_P3_nothing_is_published_while_the_own_beat_is_older_than_the_lease(case: Case) -> None:
    case.fresh = False
    case.offer(0, 1)
    assert not await case.publisher.flush(0.15)
    assert case.log.calls == 0
    case.fresh = True
    assert await case.publisher.flush()
    assert case.log.ids == ["3-2", "3-3"]


async def test_what_json_lacks_is_published_all_the_same(case: Case) -> None:
    case.publisher.offer("updates", ("a|b",), {"\ud800": object()}, None)
    assert await case.publisher.flush()
    assert case.log.events[0]["ns"] == ["a|b"]
    assert "step" not in case.log.events[0]


async def test_the_end_does_not_hang_when_a_library_swallows_the_cancellation() -> None:
    """redis-py sends within asyncio.wait_for, which before Python 3.12 may do so."""
    made = Case()
    entered = asyncio.Event()

    async def swallowing(*_args: Any) -> Appended:
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return Appended(None, [Verdict.APPENDED])

    made.log.append = swallowing  # type: ignore[method-assign]  # the fault
    async with asyncio.timeout(2):
        async with made.publisher:
            made.offer(0)
            await entered.wait()
