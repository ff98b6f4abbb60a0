"""Positions are ordered as pairs and read strictly; an event keeps its bytes, and bounds its size."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.contract.codec import MAX_EVENT_BYTES
from threadline.contract.events import Event, EventId, EventType, decode_event, encode_event, now
from threadline.contract.states import ENDED

halves = st.integers(0, 2**64 - 1)
positions = st.builds(EventId, halves, halves)
USUAL: dict[str, Any] = {
    "job_id": "j",
    "thread_id": "t",
    "type": "updates",
    "id": "2-17",
    "at": "2026-11-20T08:00:00.123Z",
}


@given(positions)
def test_a_position_is_read_as_it_was_written(position: EventId) -> None:
    assert EventId.parse(str(position)) == position


@given(positions, positions)
def test_positions_are_ordered_by_epoch_then_number(one: EventId, other: EventId) -> None:
    assert (one < other) == (one.epoch < other.epoch or (one.epoch == other.epoch and one.n < other.n))


def test_positions_are_no_strings() -> None:
    assert EventId.parse("2-9") < EventId.parse("2-10") < EventId.parse("10-1")


@pytest.mark.parametrize(
    "text",
    ["", "-", "1", "1-", "-1", "1-x", "+1-1", " 1-1", "1-1 ", "1_0-1", "1-1-1", "1.0-1", "٣-1", "²-1", "$", "0x1-1"],
)
def test_anything_else_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="an event id is <epoch>-<n>, for example 2-17, not " + re.escape(repr(text))):
        EventId.parse(text)


@pytest.mark.parametrize("text", [f"{2**64}-1", f"1-{2**64}", "1-" + "9" * 5_000])
def test_a_position_that_redis_could_not_hold_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="an event id has no numbers above 18446744073709551615") as caught:
        EventId.parse(text)
    assert len(str(caught.value)) < 200


events = st.builds(
    Event,
    job_id=st.text(),
    thread_id=st.text(),
    type=st.text() | st.sampled_from(EventType).map(str),
    id=st.builds(str, positions),
    ns=st.lists(st.text()),
    data=st.none() | st.dictionaries(st.text(), st.integers() | st.text()),
    at=st.text(min_size=1),
    prev=st.none() | st.builds(str, positions),
    step=st.none() | st.integers(-1, 1_000),
)


@given(events)
def test_an_event_comes_back_as_it_was_sent(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


def test_prev_and_step_are_there_only_where_set() -> None:
    assert set(json.loads(encode_event(Event(**USUAL)))) == {
        "v",
        "id",
        "job_id",
        "thread_id",
        "type",
        "ns",
        "data",
        "at",
    }
    both = json.loads(encode_event(Event(**USUAL, step=-1, prev="2-16")))
    assert (both["step"], both["prev"]) == (-1, "2-16")


def test_the_end_of_a_job_is_terminal_and_nothing_else() -> None:
    terminal = {kind for kind in EventType if Event(**{**USUAL, "type": str(kind)}).terminal}
    assert {str(kind) for kind in terminal} == {str(state) for state in ENDED}
    assert not Event(**USUAL).terminal


@pytest.mark.parametrize("kind", ["updates", "succeeded"])
def test_data_over_one_mebibyte_is_replaced_by_its_size(kind: str) -> None:
    data = {"result": "é" * (MAX_EVENT_BYTES // 2)}
    sent = json.loads(encode_event(Event(**{**USUAL, "type": kind, "data": data})))
    assert sent["data"] == {"truncated": True, "bytes": len(json.dumps(data, ensure_ascii=False).encode()) - 1}
    assert sent["id"] == "2-17"


def test_data_of_one_mebibyte_is_whole() -> None:
    data = "x" * (MAX_EVENT_BYTES - 2)
    assert json.loads(encode_event(Event(**{**USUAL, "data": data})))["data"] == data


def test_moments_are_utc_with_milliseconds() -> None:
    moment = datetime(2026, 11, 20, 9, 0, 0, 123_999, tzinfo=timezone(timedelta(hours=1)))
    assert now(moment) == "2026-11-20T08:00:00.123Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"job_id":1}', b"\xff", b'{"job_id":"\xff"}', b"null"])
def test_what_is_no_event_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is msgspec's
        decode_event(data)
