"""`interrupt_on` through the queue: in subagents, several at once, with all four decisions, and the worker killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.workers import WorkerHandle, Workers
from threadline import Client, JobInterrupted
from threadline.job import Job

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.2", "THREADLINE_LEASE_SECONDS": "5"}
AGENTS = "office=support.people_agents:office,each=support.people_agents:each"


@pytest.fixture
def asking(env: dict[str, str]) -> dict[str, str]:
    return {**env, **QUICK, "THREADLINE_AGENTS": AGENTS}


@pytest.fixture
def started(asking: dict[str, str]) -> Iterator[Workers]:
    with Workers(asking) as workers:
        yield workers


async def asked(job: Job) -> dict[str, str]:
    """Ids by the calls that they ask about."""
    with pytest.raises(JobInterrupted) as caught:
        await job.result(timeout=30)
    return {_about(one["value"]): one["id"] for one in caught.value.interrupts}


def _about(value: dict[str, Any]) -> str:
    requests = value.get("action_requests", [value])
    return " ".join(str(next(iter(request["args"].values()))) for request in requests)


def sent(env: dict[str, str], thread: str) -> list[str]:
    effects = Path(env["TEST_GATES"]) / "effects"
    lines = effects.read_text().splitlines() if effects.exists() else []
    return sorted(line.partition(" ")[2] for line in lines if line.startswith(f"{thread} "))


def decided(*decisions: dict[str, Any]) -> dict[str, Any]:
    return {"decisions": list(decisions)}


def said(result: dict[str, Any], name: str) -> list[str]:
    return [one["data"]["content"] for one in result["messages"] if one["data"].get("name") == name]


async def test_four_decisions_in_the_leader_and_two_subagents_across_a_crash(
    client: Client, started: Workers, asking: dict[str, str]
) -> None:
    first: WorkerHandle = started.start()
    input_ = {"messages": [{"role": "user", "content": "go"}]}
    job = await client.enqueue("office", input_, thread_id="t", user_id="u")
    assert set(await asked(job)) == {"leader"}
    edit = {"type": "edit", "edited_action": {"name": "send", "args": {"text": "edited"}}}
    job = await client.resume("t", decided(edit), user_id="u")
    at_once = await asked(job)
    assert set(at_once) == {"one two", "which?"}
    assert sent(asking, "t") == ["edited"]
    first.kill()

    half = await client.resume(
        "t",
        values={at_once["one two"]: decided({"type": "approve"}, {"type": "reject", "message": "not two"})},
        user_id="u",
    )
    second = started.start()
    assert await asked(half) == {"which?": at_once["which?"]}
    assert sent(asking, "t") == ["edited", "one"]
    last = await client.resume("t", decided({"type": "respond", "message": "the red one"}), user_id="u")
    result = await last.result(timeout=30)
    post, desk = said(result, "task")
    assert "sent one" in post
    assert "not two" in post
    assert desk == "the red one"
    assert "edited" in said(result, "send")[0]
    assert sent(asking, "t") == ["edited", "one"]

    await a_command_decides_for_each_call(client, asking)
    assert second.terminate() == 0


async def a_command_decides_for_each_call(client: Client, env: dict[str, str]) -> None:
    """`interrupt_mode="per_call"`, with the same worker."""
    for thread, flag in (("yes", "--approve"), ("no", "--reject")):
        job = await client.enqueue("each", "go", thread_id=thread)
        assert set(await asked(job)) == {"one", "two"}
        command = [sys.executable, "-m", "threadline.cli", "resume", thread, flag, "--json"]
        answered = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True)
        await (await client.job(json.loads(answered.stdout)["job_id"])).result(timeout=30)
        assert sent(env, thread) == (["one", "two"] if flag == "--approve" else [])
