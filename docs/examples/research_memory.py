"""The research agent with memory: what it learned on one thread is of use on the next.

python docs/examples/research_memory.py
"""
# ruff: noqa: INP001 - examples are no package

from __future__ import annotations

import asyncio

from threadline import Client

QUESTIONS = ("What does Weaver do when its pool is exhausted?", "How large is the pool of Weaver?")


async def main() -> list[str]:
    """The reports of two threads of one user, and of the second question by another user."""
    reports = []
    async with Client.from_env() as client:
        for user, question in (("ann", QUESTIONS[0]), ("ann", QUESTIONS[1]), ("bob", QUESTIONS[1])):
            job = await client.enqueue("research", question, user_id=user)
            reports.append((await job.result(timeout=120))["report"])
    return reports


if __name__ == "__main__":
    print(*asyncio.run(main()), sep="\n\n")  # noqa: T201 - its output
