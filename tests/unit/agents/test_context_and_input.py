"""Contexts and inputs are compared with the graph's own schemas, and a refusal names the field."""

from __future__ import annotations

import operator
import typing
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph, add_messages
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from threadline import InvalidJob
from threadline_worker.agents.agent import Agent
from threadline_worker.agents.context import context_of
from threadline_worker.serialise import jsonable

OURS = {"user_id": "u", "job_id": "j", "thread_id": "t"}


@dataclass
class Tone:
    loud: bool


@dataclass
class Data:
    user_id: str
    tone: Tone
    model: str = "small"


class Model(BaseModel):
    thread_id: str
    size: int = Field(gt=0)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    job_id: str = ""


class Typed(TypedDict):
    job_id: str
    topic: NotRequired[str]


class Old(typing.TypedDict):
    user_id: str
    size: int


class Odd:
    """What pydantic cannot describe."""


@dataclass
class Undescribed:
    user_id: str
    odd: Odd | None = None


def test_contexts_are_built_by_their_schema_with_ours_filled_in() -> None:
    assert context_of(Data, {"tone": {"loud": True}}, OURS) == Data("u", Tone(loud=True))
    assert context_of(Model, {"size": 1}, OURS) == Model(thread_id="t", size=1)
    assert context_of(Typed, {"topic": "x"}, OURS) == {"job_id": "j", "topic": "x"}
    assert context_of(Undescribed, None, OURS) == Undescribed("u")
    assert context_of(None, {"any": 1}, OURS) == {"any": 1}
    assert context_of(None, None, OURS) is None
    assert context_of(Open, {"more": 1}, OURS).more == 1


@pytest.mark.parametrize("schema", [Data, Model, Typed, Undescribed])
def test_ours_win(schema: Any) -> None:
    given = {"user_id": "other", "job_id": "other", "thread_id": "other"}
    known = {name: given[name] for name in schema.__annotations__ if name in given}
    more = {"tone": {"loud": True}} if schema is Data else {"size": 1} if schema is Model else {}
    assert "other" not in str(context_of(schema, {**known, **more}, OURS))


@pytest.mark.parametrize(
    ("schema", "given", "says"),
    [
        (Data, {}, r"context\.tone"),
        (Data, {"tone": {"loud": "perhaps"}}, r"context\.tone\.loud"),
        (Data, {"tone": {"loud": True}, "modle": "x"}, "no field modle"),
        (Model, {"size": 0}, r"context\.size"),
        (Model, None, r"context\.size: Field required"),
        (Typed, {"topic": 7}, r"context\.topic"),
        (Undescribed, {"even": 1}, "no field even"),
    ],
)
def test_what_does_not_fit_is_named(schema: Any, given: Any, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        context_of(schema, given, OURS)


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    talk: list[AnyMessage]
    items: Annotated[list[int], operator.add]
    topic: str
    count: int


class Asked(TypedDict):
    topic: str
    count: NotRequired[int]


class Whole(BaseModel):
    topic: str
    count: int = Field(default=1, ge=1)
    messages: Annotated[list[AnyMessage], add_messages] = []


def agent(state: Any, **schemas: Any) -> Agent:
    graph = StateGraph(state, **schemas)
    graph.add_node("n", lambda _state: {})
    graph.add_edge(START, "n")
    return Agent("a", graph.compile(), jsonable)


@pytest.mark.parametrize(
    ("state", "schemas", "given"),
    [
        # A part of a state, messages in any form that a reducer takes, types as JSON has them.
        (State, {}, {"topic": "x"}),
        (State, {}, {"messages": [{"role": "tool", "content": "no id"}], "items": "any"}),
        (State, {}, {"messages": ("user", "hi"), "talk": [{"role": "user", "content": "hi"}], "unknown": 1}),
        (State, {"input_schema": Asked}, {"topic": "x"}),
        (Old, {}, {"size": 3}),
        (Whole, {}, {"topic": "x", "messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_inputs_that_langgraph_takes_are_taken(state: Any, schemas: Any, given: dict[str, Any]) -> None:
    assert agent(state, **schemas).input(given, "j", new_thread=True) == given


@pytest.mark.parametrize(
    ("state", "schemas", "given", "says"),
    [
        (State, {}, {"topic": ["x"]}, r"input\.topic"),
        (State, {}, {"tpoic": "x"}, "none of the agent's fields: count, items"),
        (State, {"input_schema": Asked}, {"count": 1}, r"input\.topic: Field required"),
        (State, {"input_schema": Asked}, {"topic": "x", "count": "many"}, r"input\.count"),
        (Old, {}, {"size": "many"}, r"input\.size"),
        (Whole, {}, {"count": 1}, r"input\.topic: Field required"),
        (Whole, {}, {"topic": "x", "count": 0}, r"input\.count"),
        (Asked, {}, "text", "has no `messages`"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_field(state: Any, schemas: Any, given: Any, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        agent(state, **schemas).input(given, "j", new_thread=True)


def test_a_thread_may_have_what_an_input_lacks() -> None:
    assert agent(Whole).input({"count": 2}, "j", new_thread=False) == {"count": 2}


def test_text_becomes_one_message_with_a_stable_id() -> None:
    [message] = agent(State).input("hi", "j", new_thread=True)["messages"]
    assert message == HumanMessage("hi", id="j-input")


def test_the_input_schema_is_told_also_where_pydantic_cannot() -> None:
    assert agent(Old).input_schema()["properties"]["size"]["type"] == "integer"
    assert agent(State, input_schema=Asked).input_schema()["required"] == ["topic"]
