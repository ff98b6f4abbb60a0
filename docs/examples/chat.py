"""A chat: words are printed as the model says them, and the second turn goes on with the first one's thread.

export THREADLINE_AGENTS=docs/examples/memory.json   # for the workers
python docs/examples/chat.py
"""
# ruff: noqa: INP001 - examples are no package

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from scripted import Talking, model_or

from threadline import Client


def script(messages: Sequence[BaseMessage]) -> AIMessage:
    """What a model does: it has the whole conversation."""
    asked = [message.text for message in messages if message.type == "human"]
    if len(asked) == 1:
        return AIMessage("A lease is a promise that ends by itself.")
    return AIMessage(f"You asked before: {asked[0]} I said: {messages[1].text}")


agent = create_agent(model_or(script, Talking))


async def say(client: Client, thread_id: str | None, text: str, show: Callable[[str], object]) -> str:
    """One turn; the thread, which the next one goes on with."""
    job = await client.enqueue("chat", text, thread_id=thread_id, user_id="ann", stream_modes=["messages"])
    async for event in job.events():
        if event.type == "messages":
            message, _metadata = event.data  # a piece of it; all pieces have one id
            show(message["data"]["content"])
    await job.result(timeout=60)  # raises if the job has failed
    return job.thread_id


async def main(show: Callable[[str], object]) -> None:
    """Two turns."""
    async with Client.from_env() as client:
        thread = await say(client, None, "What is a lease?", show)
        show("\n")
        await say(client, thread, "What did I ask?", show)
        show("\n")


if __name__ == "__main__":
    asyncio.run(main(partial(print, end="", flush=True)))
