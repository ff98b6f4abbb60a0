"""A support bot that remembers an order across threads: what it writes under /memories/ belongs to its user.

export THREADLINE_AGENTS=docs/examples/memory.json   # for the workers
python docs/examples/support_bot.py
"""
# ruff: noqa: INP001 - examples are no package

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from deepagents import create_deep_agent
from langchain_core.messages import AIMessage, BaseMessage
from scripted import call, model_or, results

from threadline import Client
from threadline_worker.memory import threadline_backend

PROMPT = """You help customers with their orders. Note every order that a customer names in /memories/orders.md.
Read that file before you answer a question about an order."""


def script(messages: Sequence[BaseMessage]) -> AIMessage:
    """What a model does with that prompt."""
    question = [message.text for message in messages if message.type == "human"][-1]
    answers = results(messages)
    order = re.search(r"\b[A-Z]-\d+\b", question)
    if order and not answers:
        return call("write_file", file_path="/memories/orders.md", content=f"Ordered: {order[0]}")
    if order:
        return AIMessage(f"I have noted your order {order[0]}.")
    if not answers:
        return call("read_file", file_path="/memories/orders.md")
    known = re.search(r"\b[A-Z]-\d+\b", answers[-1])
    return AIMessage(f"Your order {known[0]} is on its way." if known else "Which order do you mean?")


agent = create_deep_agent(model_or(script), system_prompt=PROMPT, backend=threadline_backend())


async def main() -> list[str]:
    """Two threads of one customer, one of another; the last answers."""
    asked = [
        ("ann@example.org", "I have ordered A-4711."),
        ("ann@example.org", "Where is it?"),
        ("bob", "Where is it?"),
    ]
    said = []
    async with Client.from_env() as client:
        for user, text in asked:
            job = await client.enqueue("support", text, user_id=user)  # without thread_id: a new thread
            result = await job.result(timeout=60)
            said.append(result["messages"][-1]["data"]["content"])
    return said


if __name__ == "__main__":
    print(*asyncio.run(main()), sep="\n")  # noqa: T201 - its output
