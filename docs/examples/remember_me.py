"""`remember: my name is Bob`, in any LangGraph graph: the run's store, and a namespace of the user's own.

export THREADLINE_AGENTS=docs/examples/memory.json   # for the workers
python docs/examples/remember_me.py
"""
# ruff: noqa: INP001 - examples are no package

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_store
from langgraph.graph import END, START, MessagesState, StateGraph

from threadline import Client
from threadline_worker.memory import user_namespace


async def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
    """Remember what is to be remembered, or say what is known."""
    namespace = user_namespace("facts", user_id=config["configurable"]["user_id"])
    text = state["messages"][-1].text
    if text.startswith("remember: my name is "):
        name = text.removeprefix("remember: my name is ")
        await get_store().aput(namespace, "name", {"text": name})
        return {"messages": [AIMessage(f"Hello {name}.")]}
    found = await get_store().aget(namespace, "name")
    return {"messages": [AIMessage(f"You are {found.value['text']}." if found else "I do not know you.")]}


graph = StateGraph(MessagesState)
graph.add_node("answer", answer)
graph.add_edge(START, "answer")
graph.add_edge("answer", END)


async def main() -> list[str]:
    """What two users are told, each on a new thread."""
    said = []
    async with Client.from_env() as client:
        for user, text in (("42", "remember: my name is Bob"), ("42", "Who am I?"), ("43", "Who am I?")):
            job = await client.enqueue("remember", text, user_id=user)
            result = await job.result(timeout=60)
            said.append(result["messages"][-1]["data"]["content"])
    return said


if __name__ == "__main__":
    print(*asyncio.run(main()), sep="\n")  # noqa: T201 - its output
