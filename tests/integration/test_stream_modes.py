"""Every stream mode through real workers and a deep agent with a subagent, undisturbed and with a pick-up in between.

Three jobs ask for every mode: one runs through, one is killed within a tool of the subagent, and one after its end.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis
from langchain_core.messages import AIMessageChunk

from support.chaos_processes import package_roots
from support.gates import until
from support.ledger import cloned
from support.schema import event_errors, published
from support.workers import Workers
from threadline import Client
from threadline.contract.events import Event, encode_event
from threadline.contract.job import STREAM_MODES

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOLDEN = Path(__file__).parent.parent / "contract" / "golden"
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}
ASKED = {"messages": [{"type": "human", "content": "go"}]}
LIFECYCLE = {"queued", "started", "resumed", "released", "succeeded"}


@dataclass
class Runs:
    """What was streamed."""

    plain: list[Event]
    asked: list[Event]
    killed: list[Event]
    urls: dict[str, str]
    metrics: str


@pytest.fixture(scope="module")
def env(servers, template, tmp_path_factory) -> Iterator[dict[str, str]]:
    with cloned(servers, template) as url, redis.Redis.from_url(servers.redis_url) as connection:
        connection.flushdb()
        yield {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parent.parent)]),
            "THREADLINE_AGENTS": "deep=support.streamed:streamed,ask=support.graphs:ask",
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
            "TEST_GATES": str(tmp_path_factory.mktemp("gates")),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(env) -> AsyncIterator[Runs]:
    gates = Path(env["TEST_GATES"])
    modes = list(STREAM_MODES)
    with Workers(env) as workers:
        first = workers.start(**QUICK)
        async with Client(redis_url=env["REDIS_URL"], database_url=env["DATABASE_URL"]) as client:
            plain = await client.enqueue("deep", ASKED, thread_id="plain", stream_modes=modes)
            plain_events = [event async for event in plain.events()]
            metrics = first.metrics()
            asked = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="asked", stream_modes=modes)
            asked_events = [event async for event in asked.events()]
            gate = gates / "killed.ping3"
            gate.touch()
            killed = await client.enqueue("deep", ASKED, thread_id="killed", stream_modes=modes)
            await until((gates / f"{gate.name}.begun").exists, "the helper's tool is at work")
            await until(lambda: _parallel_tools_are_told(env, killed.job_id), "the boss' own tools are done and told")
            second = workers.start(**QUICK)
            first.kill()
            second.logged("worker.dead")
            gate.unlink()
            killed_events = [event async for event in killed.events()]
            yield Runs(plain_events, asked_events, killed_events, env, metrics)


def _parallel_tools_are_told(env: dict[str, str], job_id: str) -> bool:
    told = [event for event in published(env["REDIS_URL"]) if event["job_id"] == job_id]
    pings = [event for event in told if event["type"] == "updates" and event.get("node") == "tools" and not event["ns"]]
    custom = [event for event in told if event["type"] == "custom"]
    return len(pings) == 2 and len(custom) == 3


def of(events: list[Event], kind: str, **wanted: Any) -> list[Event]:
    return [
        event
        for event in events
        if event.type == kind and all(getattr(event, name) == value for name, value in wanted.items())
    ]


async def test_every_published_event_fits_the_schema(runs: Runs) -> None:
    events = published(runs.urls["REDIS_URL"])
    assert len(events) > 100
    assert [error for event in events for error in event_errors(event)] == []


async def test_every_mode_is_there_and_says_where_it_comes_from(runs: Runs) -> None:
    assert set(STREAM_MODES) | LIFECYCLE - {"resumed", "released"} == {event.type for event in runs.plain}
    for event in runs.plain:
        if event.type in LIFECYCLE:
            assert (event.agent, event.node, event.task) == (None, None, None)
        else:
            assert event.agent == ("helper" if event.ns else "deep"), event
            assert event.step is not None, event
            assert not event.rerun
    subagent = {tuple(event.ns) for event in runs.plain if event.ns}
    [(namespace,)] = subagent
    [start] = [event for event in of(runs.plain, "tasks", agent="deep", node="tools")
               if "result" not in event.data and event.data["input"][0]["name"] == "task"]  # fmt: skip
    assert namespace == f"tools:{start.task}"


async def test_tasks_and_nodes_are_known(runs: Runs) -> None:
    for kind in ("tasks", "updates", "messages", "tools"):
        assert all(event.task and event.node for event in of(runs.plain, kind)), kind
    # Which of three parallel tools sent something LangGraph does not say; which node, it does.
    assert {event.node for event in of(runs.plain, "custom")} == {"tools"}
    assert [event.task is not None for event in of(runs.plain, "custom", agent="helper")] == [True]
    # An update is the task's whose result comes behind it, also where three of one node run at once.
    results = {event.task: event.data["result"]["messages"] for event in of(runs.plain, "tasks", agent="deep")
               if "result" in event.data and event.node == "tools"}  # fmt: skip
    updates = {event.task: event.data["tools"]["messages"] for event in of(runs.plain, "updates", node="tools")
               if not event.ns}  # fmt: skip
    assert len(results) == 3
    assert {task: _ids(value) for task, value in updates.items()} == {
        task: _ids(value) for task, value in results.items()
    }


def _ids(messages: Any) -> list[str]:
    return [message["data"]["tool_call_id"] for message in messages]


async def test_steps_are_langgraphs(runs: Runs) -> None:
    for event in of(runs.plain, "messages"):
        assert event.step == event.data[1]["langgraph_step"]
    for event in of(runs.plain, "checkpoints"):
        assert event.step == event.data["metadata"]["step"]
    for event in of(runs.plain, "debug"):
        assert event.step == event.data["step"]
    steps: defaultdict[Any, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for event in runs.plain:
        if event.task:
            steps[event.task][event.type].add(event.step)
    assert all(len(set().union(*kinds.values())) == 1 for kinds in steps.values())
    # The values of a step come before its checkpoint; not every step changes them.
    for agent in ("deep", "helper"):
        values = [event.step for event in of(runs.plain, "values", agent=agent)]
        checkpoints = [event.step for event in of(runs.plain, "checkpoints", agent=agent)]
        assert values == [0, 2, 3, 4]
        assert checkpoints == sorted(checkpoints)
        assert set(values) <= set(checkpoints)


async def test_the_pieces_of_a_message_are_the_message(runs: Runs) -> None:
    pieces: defaultdict[str, list[AIMessageChunk]] = defaultdict(list)
    for event in of(runs.plain, "messages"):
        if event.data[0]["type"] == "AIMessageChunk":
            chunk = AIMessageChunk(**event.data[0]["data"])
            pieces[str(chunk.id)].append(chunk)
    whole = {
        message["data"]["id"]: message["data"]
        for event in of(runs.plain, "updates", node="model")
        for message in event.data["model"]["messages"]
    }
    assert len(whole) == 4
    assert set(pieces) == set(whole)
    for message_id, message in whole.items():
        total = reduce(add, pieces[message_id])
        assert total.content == message["content"]
        assert [dict(call) for call in total.tool_calls] == message["tool_calls"]
        assert total.usage_metadata == message["usage_metadata"]
        # The first chunk at once, the rest together unless 40 ms go by; six chunks at least were made.
        assert 2 <= len(pieces[message_id]) <= 5
        assert pieces[message_id][0].content == "A "


async def test_what_a_person_is_asked_is_in_the_stream_too(runs: Runs) -> None:
    for kind in ("values", "updates"):
        [event] = [event for event in of(runs.asked, kind) if "__interrupt__" in event.data]
        assert [asked["value"] for asked in event.data["__interrupt__"]] == ["how many?"]
    assert (event.agent, event.node, event.step) == ("ask", "ask", 1)
    assert event.task in {event.task for event in of(runs.asked, "tasks", node="ask")}
    assert runs.asked[-1].type == "interrupted"


async def test_what_was_streamed_has_the_golden_shape(runs: Runs) -> None:
    shape = sorted({" ".join([event.type, str(event.agent), str(event.node), str(event.step), str(len(event.ns)),
                              _kind_of_data(event)]) for event in runs.plain})  # fmt: skip
    assert shape == (GOLDEN / "stream_shape.txt").read_text().splitlines()


def _kind_of_data(event: Event) -> str:
    match event.type:
        case "tasks":
            return "result" if "result" in event.data else "start"
        case "tools":
            return str(event.data["event"])
        case "debug":
            return str(event.data["type"])
        case "messages":
            return str(event.data[0]["type"])
        case _:
            return type(event.data).__name__


async def test_what_was_shown_before_the_crash_comes_again_as_a_rerun_of_the_same_task(runs: Runs) -> None:
    kinds = [event.type for event in runs.killed if event.type in LIFECYCLE]
    assert kinds == ["queued", "started", "released", "resumed", "succeeded"]
    [resumed] = of(runs.killed, "resumed")
    [released] = of(runs.killed, "released")
    assert resumed.data["from_worker"] == released.data["worker_id"] != resumed.data["worker_id"]
    at = runs.killed.index(resumed)
    before, after = runs.killed[:at], runs.killed[at:]
    assert not any(event.rerun for event in before)
    last = of(before, "checkpoints", agent="deep")[-1]
    assert resumed.data["checkpoint_id"] == last.data["config"]["configurable"]["checkpoint_id"]
    assert resumed.step == last.step
    # The two tools of the boss had ended: LangGraph tells what they did again, with the tasks that they had.
    told = {event.task for event in of(before, "updates", node="tools") if not event.ns}
    again = of(after, "updates", node="tools", rerun=True, ns=[])
    assert {event.task for event in again} == told
    assert len(told) == 2
    # The subagent's tool began, and ends now: its beginning was shown, its end was not.
    started, ended = (
        next(event for event in of(after, "tools", agent="helper") if event.data["event"] == name)
        for name in ("tool-started", "tool-finished")
    )
    assert (started.rerun, ended.rerun) == (True, False)
    assert started.task == ended.task
    assert started.task in {event.task for event in of(before, "tools", agent="helper")}
    assert [event.rerun for event in of(after, "custom", agent="helper")] == [True]
    assert [event.rerun for event in of(after, "updates", agent="helper")] == [False, False]
    # What comes behind the step that ran again is new.
    assert not any(event.rerun for event in after if event.step is not None and event.step > 3)


async def test_everything_else_is_shown_once(runs: Runs) -> None:
    """With the reruns left out, the job that was killed shows what the other one does."""
    assert _once(event for event in runs.killed) == _once(event for event in runs.plain)


def _once(events: Any) -> Counter[str]:
    return Counter(
        " ".join([event.type, str(event.agent), str(event.node), str(event.step), _kind_of_data(event)])
        for event in events
        if event.type not in LIFECYCLE and not event.rerun and event.type != "messages"
    )


async def test_tokens_are_counted_once_for_each_call_whatever_is_streamed(runs: Runs) -> None:
    lines = [line for line in runs.metrics.splitlines() if line.startswith("threadline_tokens_total")]
    assert 'threadline_tokens_total{agent="deep",kind="input",model="scripted"} 12.0' in lines
    assert 'threadline_tokens_total{agent="deep",kind="output",model="scripted"} 20.0' in lines


async def test_events_of_each_mode_read_as_the_goldens(runs: Runs) -> None:
    """The golden events are of this very run; their keys are what a run has today, or fewer."""
    golden = json.loads((GOLDEN / "stream_modes.json").read_text())
    now: defaultdict[str, set[str]] = defaultdict(set)
    for event in runs.plain:
        now[event.type] |= set(json.loads(encode_event(event)))
    for event in golden:
        assert set(event) <= now[event["type"]], event["type"]
