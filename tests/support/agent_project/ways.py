"""Graphs as applications give them: each says what reached it."""

import operator
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from deepagents import create_deep_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import interrupt
from langgraph_sdk.runtime import ServerRuntime
from priced import Declared, Price, Undeclared
from typing_extensions import TypedDict


class Said(TypedDict):
    said: Annotated[list[Any], operator.add]


def one(node: Any, state: Any = Said, **schemas: Any) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(state, **schemas)
    graph.add_node("say", node)
    graph.add_edge(START, "say")
    return graph


async def _remember(state: Said, runtime: Runtime[Any]) -> dict[str, Any]:
    assert runtime.store is not None
    await runtime.store.aput(("authored",), "key", {"n": len(state["said"])})
    return {"said": [type(runtime.store).__name__]}


#: With a checkpointer and a store of the author's own.
authored = one(_remember).compile(checkpointer=InMemorySaver(), store=InMemoryStore())


def configured(config: RunnableConfig) -> StateGraph[Any, Any, Any, Any]:
    """A graph for each run: the node is named as the job says."""
    node = config["configurable"].get("node", "unnamed")

    async def say(_state: Said, config: RunnableConfig) -> dict[str, Any]:
        langgraphs = ("__", "checkpoint_")
        told = {name: value for name, value in config["configurable"].items() if not name.startswith(langgraphs)}
        return {"said": [node, {**told, "from_project": os.environ.get("TEST_FROM_PROJECT")}]}

    graph = StateGraph(Said)
    graph.add_node(node, say)
    graph.add_edge(START, node)
    return graph


@dataclass
class Context:
    user_id: str
    tone: str = "calm"
    sizes: list[int] = field(default_factory=list)


def _note(line: str) -> None:
    with (Path(os.environ["TEST_GATES"]) / "effects").open("a") as effects:
        effects.write(line + "\n")


@asynccontextmanager
async def served(runtime: ServerRuntime[Context]) -> AsyncIterator[StateGraph[Any, Any, Any, Any]]:
    """A graph for each run, with something that is open meanwhile."""
    run = runtime.execution_runtime
    tone = run.context.tone if run else "none"
    user = runtime.ensure_user().identity if runtime.user else "nobody"
    _note(f"open {runtime.access_context} {user} {tone}")
    try:
        yield one(lambda _state: {"said": [tone]}, context_schema=Context)
    finally:
        _note(f"close {runtime.access_context} {user} {tone}")


async def _tell(_state: Said, runtime: Runtime[Context]) -> dict[str, Any]:
    return {"said": [repr(runtime.context)]}


contextual = one(_tell, context_schema=Context).compile()


class Question(TypedDict):
    topic: str
    count: int


class Answer(TypedDict):
    topic: str
    count: int
    answer: str


strict = one(lambda state: {"answer": state["topic"] * state["count"]}, Answer, input_schema=Question).compile()


class Goods(TypedDict):
    price: Price
    anything: Any
    seen: Annotated[list[str], operator.add]


def _stock(state: Goods) -> dict[str, Any]:
    made = {"declared": Declared("a"), "undeclared": Undeclared("b")}.get(state["seen"][-1], state.get("anything"))
    return {"price": Price(5), "anything": made, "seen": [f"{state.get('price')} {state.get('anything')}"]}


goods = one(_stock, Goods).compile()


async def _ask(_state: Said, config: RunnableConfig) -> dict[str, Any]:
    return {"said": [interrupt("well?"), config["configurable"]["tone"]]}


asking = one(_ask)


class OneWord(GenericFakeChatModel):
    """A model that says one thing."""

    def bind_tools(self, _tools: Any, **_options: Any) -> Any:
        return self


def deep() -> Any:
    return create_deep_agent(OneWord(messages=iter([AIMessage("deep down")])))
