"""An agent that starts with a project's context: shared knowledge that it may only read, filled before the first job.

export THREADLINE_MEMORY_ROUTES=/memories/=user:rw,/knowledge/=shared:r
export THREADLINE_AGENTS=docs/examples/memory.json   # for the workers
threadline memory import ./house-rules --route /knowledge/
python docs/examples/project_context.py
"""
# ruff: noqa: INP001 - examples are no package

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from deepagents import create_deep_agent
from langchain_core.messages import AIMessage, BaseMessage
from scripted import call, model_or, results

from threadline import Client
from threadline_worker.memory import threadline_backend

PROMPT = "You write for this project. Follow /knowledge/style.md; correct it if it has mistakes."


def script(messages: Sequence[BaseMessage]) -> AIMessage:
    """What a model does with that prompt."""
    answers = results(messages)
    if not answers:
        return call("read_file", file_path="/knowledge/style.md")
    if len(answers) == 1:
        return call("edit_file", file_path="/knowledge/style.md", old_string="colour", new_string="color")
    return AIMessage(f"The rule is: {answers[0].strip()} My correction: {answers[1]}")


agent = create_deep_agent(model_or(script), system_prompt=PROMPT, backend=threadline_backend())


async def main() -> str:
    """What the agent knows, and what it was told when it wanted to change it."""
    async with Client.from_env() as client:
        job = await client.enqueue("writer", "How do we write?", user_id="ann")
        result = await job.result(timeout=60)
        return str(result["messages"][-1]["data"]["content"])


if __name__ == "__main__":
    print(asyncio.run(main()))  # noqa: T201 - its output
