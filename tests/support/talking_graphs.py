"""Graphs that log from everywhere: a sync tool, an async one, a subagent, libraries; too much; and one that fails.

Every line of a job holds the thread's id in its words, so that a test sees whether its fields are those of its job.
"""
# No postponed annotations here: LangChain reads those of tools at run time.

import asyncio
import logging
import os
import threading
import warnings
from typing import Any

import structlog
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

__all__ = ["fails_loudly", "noisy", "talks"]

LINES = 100_000
agents_own = logging.getLogger("my.agent")


def _who(runtime: ToolRuntime) -> str:
    return f"of {runtime.config['configurable']['thread_id']} of"


@tool
def say_sync(runtime: ToolRuntime) -> str:
    """Log in a thread."""
    agents_own.info("sync tool %s in %s", _who(runtime), threading.current_thread() is not threading.main_thread())
    return "said"


@tool
async def say_async(runtime: ToolRuntime) -> str:
    """Log in the loop, behind a pause in which another job has its turn."""
    await asyncio.sleep(0.05)
    structlog.get_logger("my.structured.agent").info("async tool", who=_who(runtime))
    logging.getLogger("psycopg").warning("psycopg %s", _who(runtime))
    logging.getLogger("arq.worker").warning("arq %s", _who(runtime))
    logging.getLogger("langchain_core.tools").warning("langchain, who does not say of whom: %s", _who(runtime))
    warnings.warn(f"beware {_who(runtime)}", stacklevel=1)
    await asyncio.create_task(_later(_who(runtime)))
    return "said"


async def _later(who: str) -> None:
    agents_own.info("a task %s", who)


@tool
async def delegate(runtime: ToolRuntime) -> str:
    """Let a subagent do it."""
    await _subagent.ainvoke({"messages": [HumanMessage("go")]}, runtime.config)
    return "said"


@tool
def say_much(runtime: ToolRuntime) -> str:
    """Log in a loop."""
    for number in range(LINES):
        agents_own.info("line %d of a loop", number)
    return "said"


def _calling(*names: str) -> Any:
    """A model that calls these tools at once, and then ends."""

    async def model(state: MessagesState) -> dict[str, Any]:
        if isinstance(state["messages"][-1], HumanMessage):
            calls = [{"name": name, "args": {}, "id": f"{name}-1"} for name in names]
            return {"messages": [AIMessage("", tool_calls=calls)]}
        return {"messages": [AIMessage("done")]}

    return model


def _graph(tools: list[Any], model: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    graph.add_edge("tools", "model")
    return graph


_subagent = _graph([say_sync, say_async], _calling("say_sync", "say_async")).compile()
talks = _graph([say_sync, say_async, delegate], _calling("say_sync", "say_async", "delegate"))
noisy = _graph([say_much], _calling("say_much"))


async def _fail(state: MessagesState) -> dict[str, Any]:
    raise ValueError(f"{state['messages'][-1].content} with {os.environ['MY_API_KEY']}")


fails_loudly = StateGraph(MessagesState)
fails_loudly.add_node("fail", _fail)
fails_loudly.add_edge(START, "fail")
