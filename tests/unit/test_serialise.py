"""Whatever a graph streams becomes JSON that can be stored and read anywhere; nothing is dropped."""

from __future__ import annotations

import dataclasses
import enum
import json
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage, message_to_dict
from langgraph.types import Interrupt
from pydantic import BaseModel, ConfigDict

from threadline_worker.serialise import jsonable, packed, storable


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    a: int
    b: Any = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")


class Moody(dict[str, int]):
    def keys(self) -> Any:
        raise RuntimeError("not now")

    def __iter__(self) -> Any:
        raise RuntimeError("not now")


@dataclasses.dataclass
class Point:
    x: int
    y: set[int]


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (Colour.RED, "red"),
        (float("nan"), {"repr": "nan"}),
        (2**70, {"repr": str(2**70)}),
        (2**64 - 1, 2**64 - 1),
        ("a \ud800", "a ?"),
        ({"\ud800": 1, 2: 3, None: 4}, {"?": 1, "2": 3, "None": 4}),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: "a", "1": "b"}, {"1": "a", "1 (str)": "b"}),
        ((1, [2]), [1, [2]]),
        (b"\x00\xff", {"base64": "AP8="}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=1.5), 1.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a"), "/a"),
        (Model(a=1, b=Colour.RED), {"a": 1, "b": "red"}),
        (Open(a=1, more={2}), {"a": 1, "more": [2]}),
        (Point(1, {2}), {"x": 1, "y": [2]}),
        (Interrupt(value={"q": Colour.RED}, id="i"), {"id": "i", "value": {"q": "red"}}),
    ],
)
def test_each_kind_has_its_form(value, expected) -> None:
    assert jsonable(value) == expected


def test_messages_take_langchains_form() -> None:
    found = jsonable([HumanMessage("hi", id="1"), AIMessage("ho")])
    assert [message["type"] for message in found] == ["human", "ai"]
    assert found[0]["data"]["content"] == "hi"
    chunk = AIMessageChunk([{"type": "text", "text": "a", "index": 0}], id="m", tool_call_chunks=[])
    assert jsonable(chunk) == message_to_dict(chunk)


def test_what_json_lacks_is_shown_and_never_raises() -> None:
    assert jsonable(object())["repr"].startswith("<object object")
    assert jsonable(Rude()) == {"repr": "<Rude: repr failed with RuntimeError>"}
    assert jsonable({Rude(): 1}) == {"<Rude: repr failed with RuntimeError>": 1}
    assert jsonable(Loud("a")) == "a"
    assert jsonable(2**20_000) == {"repr": hex(2**20_000)[:2000]}
    assert jsonable({"bad": Moody(a=1), "good": 1}) == {"bad": {"repr": "{'a': 1}"}, "good": 1}


def test_a_cycle_is_shown_where_it_closes() -> None:
    endless: list[Any] = [1]
    endless += [endless, endless]
    assert jsonable(endless) == [1, {"repr": "[1, [...], [...]]"}, {"repr": "[1, [...], [...]]"}]
    message = ToolMessage("x", tool_call_id="c", artifact=endless)
    found = jsonable(message)
    assert found["type"] == "tool"
    assert found["data"]["artifact"][0] == 1


def test_what_is_met_twice_but_not_within_itself_is_no_cycle() -> None:
    part = {"a": 1}
    assert jsonable([part, part]) == [part, part]


def test_an_events_data_is_json_of_at_most_a_mebibyte() -> None:
    assert packed({"a": {1}}) == b'{"a":[1]}'
    assert len(packed("x" * (2**20 - 2))) == 2**20
    assert json.loads(packed("x" * (2**20 - 1))) == {"truncated": True, "bytes": 2**20 + 1}


def test_what_would_grow_without_end_is_cut_short() -> None:
    """Thirty lists that hold each other twice are a thousand million values."""
    value: list[Any] = [1]
    for _ in range(30):
        value = [value, value]
    assert json.loads(packed(value))["truncated"]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(blacklist_categories=()))
    | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(blacklist_categories=())) | st.integers(), inner)
    ),
    max_leaves=20,
)


@given(anything)
def test_the_outcome_always_encodes(value) -> None:
    msgspec.json.encode(jsonable(value))


def test_storable_text_has_neither_nul_nor_surrogates() -> None:
    assert storable("a\0b\ud800c é") == "a\ufffdb?c é"
