"""What would not be read back from a checkpoint is refused when it is written, and when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import START, StateGraph
from langgraph.types import Interrupt, Send
from pydantic import BaseModel
from typing_extensions import TypedDict

from threadline.errors import ConfigurationError
from threadline_worker.strict_types import StrictSerializer, UndeclaredTypeError, declared_types, types_of

HERE = __name__


@dataclass
class Order:
    number: int


class Model(BaseModel):
    order: Order


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        [HumanMessage("a", id="1"), AIMessage("b", tool_calls=[{"name": "x", "args": {}, "id": "1"}])],
        {"when": datetime(2026, 1, 1, tzinfo=UTC), "set": {1, 2}, 3: b"x"},
        [Send("n", {"m": HumanMessage("x")}), Interrupt("x", id="1")],
        _DeltaSnapshot([HumanMessage("q", id="1")]),
    ],
)
def test_what_graphs_commonly_hold_goes_through(value: Any) -> None:
    serde = StrictSerializer()
    assert serde.loads_typed(serde.dumps_typed(value)) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [(Order(1), "Order"), ([{"deep": Model(order=Order(1))}], "Model"), (_DeltaSnapshot([Colour.RED]), "Colour")],
)
def test_an_undeclared_type_is_named_with_the_setting_both_ways(value: Any, name: str) -> None:
    says = f"THREADLINE_MSGPACK_TYPES={HERE}:{name}"
    with pytest.raises(UndeclaredTypeError, match=says):
        StrictSerializer().dumps_typed(value)
    written_before = JsonPlusSerializer().dumps_typed(value)
    with pytest.raises(UndeclaredTypeError, match=says):
        StrictSerializer().loads_typed(written_before)
    serde = StrictSerializer(declared_types(f"{HERE}:{name}"))
    assert serde.loads_typed(serde.dumps_typed(value)) == value


def test_one_failed_read_does_not_fail_the_next() -> None:
    serde = StrictSerializer()
    with pytest.raises(UndeclaredTypeError):
        serde.loads_typed(JsonPlusSerializer().dumps_typed(Order(1)))
    assert serde.loads_typed(serde.dumps_typed([1])) == [1]


def test_what_release_0_1_0_has_written_of_files_is_read_as_it_did() -> None:
    unnamed = type("State", (Order,), {"__module__": "threadline_agent_graph_1a2b"})
    written = JsonPlusSerializer().dumps_typed(dataclass(unnamed)(1))
    assert StrictSerializer().loads_typed(written) == {"number": 1}


def test_the_setting_is_a_list_of_classes() -> None:
    assert declared_types(" a.b:C, d:E ,") == {("a.b", "C"), ("d", "E")}
    for wrong in ("a.b", "a:b:c", "a.b:", "a b:C"):
        with pytest.raises(ConfigurationError, match="THREADLINE_MSGPACK_TYPES"):
            declared_types(wrong)


class Inner(TypedDict):
    order: Order


class Outer(TypedDict):
    model: Model


def test_a_graphs_own_schemas_declare_their_types_also_in_copies_and_subgraphs() -> None:
    inner = StateGraph(Inner)
    inner.add_node("n", lambda _state: {})
    inner.add_edge(START, "n")
    outer = StateGraph(Outer)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    copy = outer.compile().with_config({"recursion_limit": 7})
    assert {(HERE, "Model"), (HERE, "Order")} <= types_of(copy)
