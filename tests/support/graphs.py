"""Graphs for tests: each step leaves a line outside all databases, and waits at a gate only if the test closed it.

`$TEST_GATES` is a folder. A step appends `<thread> <step> <pid>` to `effects` there. While a file `<thread>.<step>`
exists the step stands before its gate; the test removes the file to let it go on.
"""

from __future__ import annotations

import asyncio
import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt


class Steps(TypedDict):
    """`until` steps are made; `done` lists them."""

    done: Annotated[list[int], operator.add]
    until: int


def _gates() -> Path:
    folder = Path(os.environ["TEST_GATES"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _step(state: Steps, config: RunnableConfig) -> dict[str, Any]:
    thread, number = config["configurable"]["thread_id"], len(state["done"])
    await _gate(thread, number)
    return {"done": [number]}


async def _gate(thread: str, number: int) -> None:
    folder = _gates()
    with (folder / "effects").open("a") as effects:
        effects.write(f"{thread} {number} {os.getpid()}\n")
    while (folder / f"{thread}.{number}").exists():
        await asyncio.sleep(0.01)


def _more(state: Steps) -> str:
    return END if len(state["done"]) >= state["until"] else "step"


steps = StateGraph(Steps)
steps.add_node("step", _step)
steps.add_edge(START, "step")
steps.add_conditional_edges("step", _more)


async def _ask(_state: Steps) -> dict[str, Any]:
    return {"done": [int(interrupt("how many?"))]}


ask = StateGraph(Steps)
ask.add_node("ask", _ask)
ask.add_edge(START, "ask")
ask.add_edge("ask", END)


async def _fail(state: Steps, config: RunnableConfig) -> dict[str, Any]:
    """Fails as the file `<thread>.fail` says (`ValueError`, `ConnectionError`), until the test removes it."""
    order = _gates() / f"{config['configurable']['thread_id']}.fail"
    if order.exists():
        raise {"ValueError": ValueError, "ConnectionError": ConnectionError}[order.read_text()]("as ordered")
    return {"done": [1]}


fails = StateGraph(Steps)
fails.add_node("fail", _fail)
fails.add_edge(START, "fail")
fails.add_edge("fail", END)


async def _answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"{len(state['messages'])}: {state['messages'][-1].content}")]}


chat = StateGraph(MessagesState)
chat.add_node("answer", _answer)
chat.add_edge(START, "answer")
chat.add_edge("answer", END)
