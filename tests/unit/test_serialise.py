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
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Interrupt
from pydantic import BaseModel

from threadline_worker.serialise import jsonable, storable


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    a: int
    b: Any = None


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
        ((1, [2]), [1, [2]]),
        (b"\x00\xff", {"base64": "AP8="}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=1.5), 1.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a"), "/a"),
        (Model(a=1, b=Colour.RED), {"a": 1, "b": "red"}),
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


def test_what_json_lacks_is_shown_and_never_raises() -> None:
    assert jsonable(object())["repr"].startswith("<object object")
    assert jsonable(Rude()) == {"repr": "<Rude: repr failed with RuntimeError>"}
    assert jsonable({Rude(): 1}) == {"<Rude: repr failed with RuntimeError>": 1}
    endless: list[Any] = []
    endless.append(endless)
    json.dumps(jsonable(endless))


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
