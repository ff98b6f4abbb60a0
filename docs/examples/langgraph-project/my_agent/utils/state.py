"""What a conversation carries, and what each run is told."""

from dataclasses import dataclass
from typing import Annotated, Literal

from langchain_core.messages import AnyMessage
from langgraph.graph import add_messages
from typing_extensions import TypedDict


@dataclass
class Order:
    """An order of the shop."""

    number: int
    status: str


class AgentState(TypedDict):
    """A conversation about one order at a time."""

    messages: Annotated[list[AnyMessage], add_messages]
    order: Order


@dataclass
class ContextSchema:
    """Who asks, and which model answers."""

    model_name: Literal["scripted", "anthropic", "openai"] = "scripted"
    user_id: str = "nobody"
