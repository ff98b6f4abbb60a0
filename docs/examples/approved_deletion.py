"""A deletion that a person approves: asked before it happens, and done once, whichever worker dies in between.

export THREADLINE_AGENTS=docs/examples/memory.json   # for the workers
export RECORDS=/srv/records                          # the folder that they delete from
python docs/examples/approved_deletion.py
"""
# No `from __future__ import annotations` here: LangChain reads the tool's signature at run time.
# ruff: noqa: INP001 - examples are no package

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deepagents import create_deep_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, BaseMessage
from scripted import call, model_or, results

from threadline import Client, JobInterrupted
from threadline_worker.once import once, tool_key


@tool
async def delete_record(name: str, runtime: ToolRuntime) -> str:
    """Delete a customer's record."""

    def delete() -> str:
        (Path(os.environ["RECORDS"]) / name).unlink()  # a second time it would raise FileNotFoundError
        return f"{name} was deleted"

    # A worker that dies behind this line has deleted, and kept it: the next one gets what was kept.
    done = await once(tool_key(runtime), delete, in_doubt="raise")
    print(done, file=sys.stderr, flush=True)  # noqa: T201 - the worker's log
    await asyncio.sleep(float(os.environ.get("PAUSE", "0")))  # time to kill the worker, if you want to see it
    return done


def script(messages: Sequence[BaseMessage]) -> AIMessage:
    """What a model does that is asked to delete."""
    answers = results(messages)
    return AIMessage(f"Done: {answers[-1]}.") if answers else call("delete_record", name="ann.json")


agent = create_deep_agent(
    model_or(script),
    tools=[delete_record],
    system_prompt="You delete the records that you are asked to delete.",
    interrupt_on={"delete_record": {"allowed_decisions": ["approve", "reject"]}},
)


async def ask(client: Client) -> str:
    """The thread that waits for a person: `threadline inbox` lists it."""
    job = await client.enqueue("cleaner", "Delete what we have of Ann.", user_id="clerk")
    try:
        await job.result(timeout=60)
    except JobInterrupted as waiting:
        [asked] = waiting.interrupts
        [request] = asked["value"]["action_requests"]
        print(f"May it call {request['name']}({request['args']})?", file=sys.stderr)  # noqa: T201 - its output
    return job.thread_id


async def approve(client: Client, thread_id: str) -> str:
    """The person's answer, as `threadline resume THREAD --approve` gives it; what the agent says then."""
    job = await client.resume(thread_id, {"decisions": [{"type": "approve"}]}, user_id="clerk")
    result = await job.result(timeout=60)
    return str(result["messages"][-1]["data"]["content"])


async def main() -> str:
    """Ask, and approve."""
    async with Client.from_env() as client:
        return await approve(client, await ask(client))


if __name__ == "__main__":
    print(asyncio.run(main()))  # noqa: T201 - its output
