"""Graphs whose tools stand at a gate in the middle of their work, so that a test can take the worker down there.

Each tool appends a JSON line to `$TEST_GATES/tools` (thread, what, key, pid) and then waits while the file
`<thread>.gate` exists. `calls` has parallel, sync and a subagent's tools; `payments` has effects kept by `once`.
"""
# No postponed annotations here: LangChain reads those of tools at run time.

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send

from threadline_worker.once import (
    EffectInDoubt,
    once,
    once_in_transaction,
    once_in_transaction_sync,
    once_sync,
    tool_key,
)

__all__ = ["calls", "payments"]


def _line(runtime: ToolRuntime, what: str, key: str | None = None) -> None:
    line = {"thread": runtime.config["configurable"]["thread_id"], "what": what, "key": key, "pid": os.getpid()}
    with (Path(os.environ["TEST_GATES"]) / "tools").open("ab", buffering=0) as lines:
        lines.write(json.dumps(line).encode() + b"\n")


def _closed(runtime: ToolRuntime) -> bool:
    return (Path(os.environ["TEST_GATES"]) / f"{runtime.config['configurable']['thread_id']}.gate").exists()


async def _gate(runtime: ToolRuntime) -> None:
    while _closed(runtime):
        await asyncio.sleep(0.01)


def _gate_sync(runtime: ToolRuntime) -> None:
    while _closed(runtime):
        time.sleep(0.01)


@tool
async def note(what: str, runtime: ToolRuntime) -> str:
    """Note the call's key."""
    _line(runtime, what, tool_key(runtime))
    await _gate(runtime)
    return what


@tool
def note_sync(what: str, runtime: ToolRuntime) -> str:
    """Note the call's key, in a thread."""
    _line(runtime, what, tool_key(runtime))
    _line(runtime, f"{what}, second effect", tool_key(runtime, "second"))
    _gate_sync(runtime)
    return what


@tool
async def delegate(runtime: ToolRuntime) -> str:
    """Let a subagent do it."""
    found = await _subagent.ainvoke({"messages": [HumanMessage("go")]}, runtime.config)
    return str(found["messages"][-1].content)


def _calling(*asked: tuple[str, str, str]) -> Any:
    """A model that calls these tools (name, id, what) once, and then says what they answered."""

    def model(state: MessagesState) -> dict[str, Any]:
        answers = [str(message.content) for message in state["messages"] if message.type == "tool"]
        if answers:
            return {"messages": [AIMessage(" | ".join(answers))]}
        called = [
            {"name": name, "id": call_id, "args": {"what": what} if what else {}} for name, call_id, what in asked
        ]
        return {"messages": [AIMessage("", tool_calls=called)]}

    return model


def _all_at_once(state: MessagesState) -> str:
    """One task for all calls."""
    return "tools" if state["messages"][-1].tool_calls else END


def _one_by_one(state: MessagesState) -> Any:
    """A task for each call, as create_agent has it."""
    return [Send("tools", [call]) for call in state["messages"][-1].tool_calls] or END


def _agent(model: Any, tools: list[Any], route: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", route, ["tools", END])
    graph.add_edge("tools", "model")
    return graph


# The subagent's model gives its calls one and the same id: their tasks tell them apart.
_subagent = _agent(
    _calling(("note", "c1", "inner"), ("note_sync", "c1", "inner sync")), [note, note_sync], _one_by_one
).compile()
_outer = _calling(("note", "c1", "one"), ("note", "c2", "two"), ("note_sync", "c3", "sync"), ("delegate", "c4", ""))
calls = _agent(_outer, [note, note_sync, delegate], _all_at_once)


@tool
async def pay_run(runtime: ToolRuntime) -> str:
    """Again, if in doubt."""

    async def pay() -> str:
        _line(runtime, "run")
        await _gate(runtime)
        return "paid"

    return await once(tool_key(runtime), pay, in_doubt="run")


@tool
def pay_raise(runtime: ToolRuntime) -> str:
    """Never again, if in doubt."""

    def pay() -> str:
        _line(runtime, "raise")
        _gate_sync(runtime)
        return "paid"

    try:
        return once_sync(tool_key(runtime), pay, in_doubt="raise")
    except EffectInDoubt as doubt:
        return f"in doubt since {doubt.worker_id}"


@tool
async def pay_kept(runtime: ToolRuntime) -> str:
    """The effect is done and kept, and the tool goes on for a while."""

    async def pay() -> str:
        _line(runtime, "kept")
        return f"by {os.getpid()}"

    paid = await once(tool_key(runtime), pay, in_doubt="raise")
    _line(runtime, "past")
    await _gate(runtime)
    return paid


@tool
async def pay_table(runtime: ToolRuntime) -> str:
    """In one transaction with the record."""

    async def pay(connection: Any) -> str:
        await connection.execute("INSERT INTO public.paid VALUES ('async')")
        _line(runtime, "table")
        await _gate(runtime)
        cursor = await connection.execute("SHOW transaction_timeout")
        return str((await cursor.fetchone())["transaction_timeout"])

    return await once_in_transaction(tool_key(runtime), pay)


@tool
def pay_table_sync(runtime: ToolRuntime) -> str:
    """The same in a thread."""

    def pay(connection: Any) -> str:
        connection.execute("INSERT INTO public.paid VALUES ('sync')")
        _line(runtime, "table sync")
        _gate_sync(runtime)
        return "paid"

    return once_in_transaction_sync(tool_key(runtime), pay)


_payments = [pay_run, pay_raise, pay_kept, pay_table, pay_table_sync]
payments = _agent(_calling(*((pay.name, pay.name, "") for pay in _payments)), _payments, _one_by_one)
