"""P1-P3: events go out in order and without a hole; what Redis does not take waits, and nobody waits for Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from support.gates import until
from threadline.contract.events import Event, EventId, encode_event
from threadline.log.append import Appended, Verdict
from threadline_worker import publisher, unsent
from threadline_worker.coalesce import Coalescer
from threadline_worker.origins import Origin
from threadline_worker.publisher import Publisher
from threadline_worker.shown import Shown
from threadline_worker.telemetry.metrics import Metrics

METADATA = {"langgraph_node": "model"}


class Log:
    """An EventLog whose Redis can be away, lose its answer, or know a higher epoch."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.calls = 0
        self.away = False
        self.answers_lost = 0
        self.stale = False

    def encode(self, event: Event) -> bytes:
        return encode_event(event)

    async def append(
        self, _job: str, _thread: str, epoch: int, events: list[tuple[int, bytes]], *, queued: bytes = b""
    ) -> Appended:
        self.calls += 1
        if self.away:
            raise RedisConnectionError("away")
        if self.stale:
            return Appended(EventId(epoch + 1, 1), [Verdict.STALE] * len(events))
        known = {event["id"] for event in self.events}
        before = [queued] if queued and not known else []
        found = [json.loads(encoded) for encoded in [*before, *(encoded for _n, encoded in events)]]
        self.events += [event for event in found if event["id"] not in known]
        if self.answers_lost:
            self.answers_lost -= 1
            raise RedisConnectionError("the answer was lost")
        return Appended(None, [Verdict.APPENDED] * len(events))

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


class Case:
    def __init__(self, **more: Any) -> None:
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
            **more,
        )

    def on_stale(self) -> None:
        self.lost += 1

    def offer(self, *numbers: int, kind: str = "updates") -> None:
        for number in numbers:
            self.publisher.offer(kind, (), {"n": number}, Origin(step=number))


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
    case.publisher.first(b'{"id":"3-1"}', "started", b'{"id":"0-1"}')
    case.offer(0)
    await until(lambda: case.log.calls or None, "a try")
    case.log.away = False
    assert await case.publisher.flush()
    assert case.log.ids == ["0-1", "3-1", "3-2"]


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
    case.offer(*range(3000, 3010))
    await until(lambda: case.log.calls or None, "a try")
    top = case.publisher.top
    assert not await case.publisher.flush(0.05)
    case.log.away = False
    assert await case.publisher.flush()
    assert [event["data"]["n"] for event in case.log.events if event["type"] == "updates"] == list(range(3010))
    tokens = [event for event in case.log.events if event["type"] == "messages"]
    assert [event["data"]["n"] for event in tokens] == list(range(5000 - len(tokens), 5000))  # the oldest went
    assert 1_000 <= len(tokens) <= 2_000
    # One position is left out, right where the tokens are missing: readers see the hole.
    numbers = [int(name.split("-")[1]) for name in case.log.ids]
    assert set(range(2, numbers[-1] + 1)) - set(numbers) == {int(tokens[0]["id"].split("-")[1]) - 1}
    assert case.log.ids[-1] == case.publisher.top == top


async def test_what_is_dropped_last_is_in_the_top(case: Case, monkeypatch) -> None:
    """The next transition names it, so that readers see a gap although nothing follows in this epoch."""
    monkeypatch.setattr(unsent, "_MOST_TOKENS", 0)
    case.offer(0)
    case.offer(1, kind="messages")
    assert await case.publisher.flush()
    assert case.log.ids == ["3-2"]
    assert case.publisher.top == "3-3"


async def test_large_data_is_cut_in_place_when_too_much_waits(case: Case) -> None:
    """200 KB a thousand times while Redis is away: nothing is dropped, and memory is bounded."""
    case.log.away = True
    large = "x" * 200_000
    for number in range(1_000):
        case.publisher.offer("custom", (), [number, large], Origin(step=number))
    case.offer(1000)
    assert case.publisher._unsent.size <= 8 * 2**20
    case.log.away = False
    assert await case.publisher.flush(20)
    assert case.log.ids == [f"3-{n}" for n in range(2, 1003)]
    whole = [
        event for event in case.log.events if not (isinstance(event["data"], dict) and "truncated" in event["data"])
    ]
    assert [event["step"] for event in whole[-20:]] == list(range(981, 1001))  # the newest are whole
    assert len(whole) < 50


async def test_a_batch_does_not_grow_while_redis_is_away(case: Case, monkeypatch) -> None:
    """What is in it no bound holds any more, and Redis would hardly take a hundred megabytes at once."""
    monkeypatch.setattr(publisher, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(publisher, "_LAST_DELAY", 0.001)
    case.log.away = True
    for number in range(20):
        case.publisher.offer("updates", (), "x" * 900_000, Origin(step=number))
        tries = case.log.calls
        await until(lambda tries=tries: case.log.calls > tries or None, "another try")
    assert sum(len(encoded) for _n, encoded, _kind in case.publisher._sending) < 2 * 2**20
    case.log.away = False
    assert await case.publisher.flush()
    assert case.log.ids == [f"3-{n}" for n in range(2, 22)]


async def test_a_burst_is_not_cut_while_redis_is_quick(case: Case) -> None:
    for number in range(200):
        case.publisher.offer("custom", (), "x" * 200_000, Origin(step=number))
        await case.publisher.room()
    assert await case.publisher.flush()
    assert all(len(event["data"]) == 200_000 for event in case.log.events)


async def test_events_without_end_are_dropped_at_last(case: Case) -> None:
    case.log.away = True
    for number in range(10_500):
        case.publisher.offer("custom", (), number)
    case.log.away = False
    assert await case.publisher.flush()
    assert [event["data"] for event in case.log.events][-1] == 10_499
    assert len(case.log.events) <= 10_000
    assert case.log.ids[0] == "3-3"  # the hole


async def test_what_the_graph_does_afterwards_changes_nothing(case: Case) -> None:
    data = {"messages": [AIMessage("as it was")], "list": [1]}
    case.publisher.offer("updates", (), data)
    data["messages"][0].content = "changed"
    data["list"].append(2)
    assert await case.publisher.flush()
    assert case.log.events[0]["data"]["messages"][0]["data"]["content"] == "as it was"
    assert case.log.events[0]["data"]["list"] == [1]


async def test_pieces_of_messages_are_joined_and_go_before_what_comes_after_them(case: Case) -> None:
    for text in ["a", "b", "c"]:
        case.publisher.offer("messages", (), (AIMessageChunk(text, id="m"), METADATA))
    case.offer(0)
    for text in ["d", "e"]:
        case.publisher.offer("messages", (), (AIMessageChunk(text, id="m"), METADATA))
    assert case.publisher.top == "3-5"
    await until(lambda: len(case.log.events) == 4, "the pieces, without a flush")
    texts = [
        event["data"]["n"] if event["type"] == "updates" else event["data"][0]["data"]["content"]
        for event in case.log.events
    ]
    assert texts == ["a", "bc", 0, "de"]
    assert await case.publisher.flush()


async def test_what_was_shown_before_is_marked_as_a_rerun() -> None:
    shown = Shown(same_tasks=True)
    shown.add("updates", (), Origin(task="t1", step=1), "")
    shown.add("tasks", (), Origin(task="t2", step=1), "start")
    shown.add("values", (), Origin(step=1), "")

    async def look_back() -> Shown:
        return shown

    case = Case(look_back=look_back)
    async with case.publisher:
        offer = case.publisher.offer
        offer("updates", (), {"a": 1}, Origin(task="t1", step=1))
        offer("updates", (), {"b": 1}, Origin(task="t2", step=1))
        offer("tasks", (), {"id": "t2", "input": 1}, Origin(task="t2", step=1))
        offer("tasks", (), {"id": "t2", "result": 1}, Origin(task="t2", step=1))
        offer("values", (), {}, Origin(step=1))
        offer("values", ("a:t1",), {}, Origin(step=1))
        offer("values", (), {}, Origin(step=2))
        offer("custom", (), {})
        assert await case.publisher.flush()
    assert [event.get("rerun", False) for event in case.log.events] == [
        True, False, True, False, True, False, False, False,
    ]  # fmt: skip


async def test_the_log_is_looked_at_behind_the_transition_and_when_redis_is_back() -> None:
    looks: list[list[str]] = []

    async def look_back() -> Shown:
        looks.append(list(case.log.ids))
        if len(looks) == 1:
            raise RedisConnectionError("away")
        return Shown(same_tasks=True)

    case = Case(look_back=look_back)
    case.publisher.first(b'{"id":"3-1"}', "resumed", b"")
    async with case.publisher:
        case.offer(0, 1)
        assert await case.publisher.flush()
    assert looks == [["3-1"], ["3-1"]]
    assert case.log.ids == ["3-1", "3-2", "3-3"]


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
    case.publisher.offer("updates", ("a|b",), {"\ud800": object()})
    assert await case.publisher.flush()
    assert case.log.events[0]["ns"] == ["a|b"]
    assert "step" not in case.log.events[0]


async def test_the_end_does_not_hang_when_a_library_swallows_the_cancellation() -> None:
    """redis-py sends within asyncio.wait_for, which before Python 3.12 may do so."""
    made = Case()
    entered = asyncio.Event()

    async def swallowing(*_args: Any, **_more: Any) -> Appended:
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return Appended(None, [Verdict.APPENDED])

    made.log.append = swallowing  # type: ignore[method-assign]  # the fault
    async with asyncio.timeout(2):
        async with made.publisher:
            made.offer(0)
            await entered.wait()


async def test_a_publisher_that_breaks_says_so(monkeypatch) -> None:
    monkeypatch.setattr(Publisher, "_encode", mock.Mock(side_effect=UnicodeError("of ours")))
    with capture_logs() as logs:
        case = Case()
        async with case.publisher:
            case.offer(0)
            assert not await case.publisher.flush(0.05)
    assert [(line["event"], str(line["exc_info"])) for line in logs] == [("publish.ended", "of ours")]


offers = st.one_of(
    st.just(("step", 0)), st.just(("step", 0)), st.tuples(st.just("token"), st.integers(0, 2)), st.just(("custom", 0))
)
#: What becomes of the next calls to Redis, and how often the loop turns before the next offer.
faults = st.tuples(st.sampled_from(["", "", "", "away", "answer lost"]), st.integers(0, 3))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(offers, faults), min_size=1, max_size=60), st.integers(1, 8))
@example([(("token", 1), ("", 0)), (("token", 1), ("", 0)), (("token", 0), ("", 0))], 1)
def test_what_comes_out_is_what_went_in_or_a_marked_hole(script: list[Any], limit: int) -> None:
    events, top = asyncio.run(_play(script, limit))
    numbers = [int(event["id"].split("-")[1]) for event in events]
    assert numbers == sorted(set(numbers))
    said = [_numbers(event) for event in events]
    steps = [count for count, ((kind, _), _) in enumerate(script) if kind == "step"]
    assert [found[0] for found, event in zip(said, events, strict=True) if event["type"] == "updates"] == steps
    # Whatever is missing is missing where a position is, or behind the last one.
    missing = set(range(len(script))) - {number for found in said for number in found}
    for lost in missing:
        placed = [
            (n, found)
            for n, found, event in zip(numbers, said, events, strict=True)
            if _in_order(script[lost][0], event)
        ]
        before = max((n for n, found in placed if max(found) < lost), default=1)
        behind = min((n for n, found in placed if min(found) > lost), default=top + 1)
        assert set(range(before + 1, behind)) - set(numbers)
    if not missing:
        assert numbers == list(range(2, len(numbers) + 2))
        assert top == numbers[-1]
    # Pieces never pass an event of another kind.
    for index, event in enumerate(events):
        if event["type"] != "messages":
            assert all(max(found) < said[index][0] for found in said[:index])
            assert all(min(found) > said[index][0] for found in said[index + 1 :])
    for message in "012":
        told = [number for event in events if event["type"] == "messages" and event["data"][0]["data"]["id"] == message
                for number in _numbers(event)]  # fmt: skip
        assert told == sorted(told)


def _in_order(offer: tuple[str, int], event: dict[str, Any]) -> bool:
    """Whether the two have one order: pieces of different messages have none, since each waits for its like."""
    kind, which = offer
    return kind != "token" or event["type"] != "messages" or event["data"][0]["data"]["id"] == str(which)


async def _play(script: list[Any], limit: int) -> tuple[list[dict[str, Any]], int]:
    case, metadata = Case(), [{}, {}, {}]
    with (
        mock.patch.multiple(unsent, _MOST_TOKENS=limit, _MOST_CHATTER=limit),
        mock.patch.object(case.publisher, "_tokens", Coalescer(0.001)),
        mock.patch.object(publisher, "_FIRST_DELAY", 0.0),
    ):
        async with case.publisher:
            for count, ((kind, which), (fault, turns)) in enumerate(script):
                case.log.away = fault == "away"
                case.log.answers_lost = int(fault == "answer lost")
                if kind == "token":
                    chunk = AIMessageChunk(f"{count} ", id=str(which))
                    case.publisher.offer("messages", (), (chunk, metadata[which]))
                else:
                    case.publisher.offer("updates" if kind == "step" else "custom", (), count)
                for _turn in range(turns):
                    await asyncio.sleep(0)
            case.log.away = False
            assert await case.publisher.flush()
            return case.log.events, int(case.publisher.top.split("-")[1])


def _numbers(event: dict[str, Any]) -> list[int]:
    data = event["data"]
    return [int(word) for word in data[0]["data"]["content"].split()] if event["type"] == "messages" else [data]
