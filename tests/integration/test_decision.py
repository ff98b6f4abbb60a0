"""R2: what a pick-up decides, at every point at which a worker can die; no committed step runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph

from support.crash_graphs import Heard
from support.desk import Desk, LedgerView, desk_on
from support.nursery import called
from threadline_worker.resume import decide

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.1", "THREADLINE_LEASE_SECONDS": "5", "THREADLINE_DRAIN_SECONDS": "5"}
#: The super-step in which a node runs.
STEP = {"plan": 1, "tool": 2, "inner1": 2, "inner2": 2, "ask": 2, "join": 3}


def sweep(env: dict[str, str], agent: str) -> list[dict[str, Any]]:
    agents = {"THREADLINE_AGENTS": f"{agent}=support.crash_graphs:{agent}"}
    Path(env["TEST_GATES"]).mkdir()
    done = called([agent, '{"said": []}'], {**env, **QUICK, **agents}, module="support.crash_sweep", timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def effects(env: dict[str, str], thread: str) -> list[str]:
    lines = (Path(env["TEST_GATES"]) / "effects").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[0] == thread]


@pytest.mark.parametrize("agent", ["family", "asking"])
def test_R2_killed_at_every_call_a_job_ends_as_if_undisturbed(env, database_url, agent, capsys) -> None:
    view = LedgerView(database_url)
    *killed, undisturbed = sweep(env, agent)
    assert not undisturbed["killed"]
    assert len(killed) > 15
    expected = end(view, undisturbed)
    assert expected["state"] == ("succeeded" if agent == "family" else "interrupted")
    for point in killed:
        where = f"killed at point {point['point']}, head {point['head']}"
        assert end(view, point) == expected, where
        nodes = effects(env, point["thread"])
        for node in set(nodes):
            if STEP[node] <= (-1 if point["head"] is None else point["head"]):
                assert nodes.count(node) == 1, f"{where}: {node} ran again after its step was committed"
            assert nodes.count(node) <= 2, where
    with capsys.disabled():
        print(f"\n{agent}: {len(killed)} crash points, 0 differences")  # noqa: T201 - a figure


def end(view: LedgerView, point: dict[str, Any]) -> dict[str, Any]:
    row = view.job(point["job"])
    values = [prompt["value"] for prompt in row["interrupts"] or []]
    return {"state": row["state"], "result": row["result"], "asked": values, "charged": row["failures"]}


@pytest.fixture
async def desk(database_url):
    async with desk_on(database_url) as made:
        yield made


def config(thread: str, job_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}, "metadata": {"job_id": job_id}}


def two_steps() -> StateGraph[Any, Any, Any, Any]:
    async def speak(_state: Heard) -> dict[str, Any]:
        return {"said": ["a word"]}

    graph = StateGraph(Heard)
    graph.add_node("one", speak)
    graph.add_node("two", speak)
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", END)
    return graph


async def test_R2_superseded_when_the_thread_went_on_without_the_job(desk: Desk) -> None:
    first = await desk.claim("t")
    saver = desk.saver(first)
    graph = two_steps().compile(checkpointer=saver)
    assert (await decide(graph, saver, "t", first.job_id)).action == "start"
    await graph.ainvoke({"said": []}, config("t", first.job_id), interrupt_after=["one"], durability="sync")
    assert (await decide(graph, saver, "t", first.job_id)).action == "resume"
    assert (await decide(graph, saver, "t", "another")).action == "start"
    await graph.ainvoke({"said": []}, config("t", "another"), durability="sync")
    assert (await decide(graph, saver, "t", first.job_id)).action == "superseded"
    found = await decide(graph, saver, "t", "another")
    assert (found.action, found.values["said"]) == ("finished", ["a word"] * 3)


async def test_R2_a_breakpoint_is_not_passed_by_a_pick_up(desk: Desk) -> None:
    """Killed between the breakpoint's checkpoint and the ledger's `interrupted`."""
    claim = await desk.claim("t")
    saver = desk.saver(claim)
    graph = two_steps().compile(checkpointer=saver)
    await graph.ainvoke({"said": []}, config("t", claim.job_id), interrupt_before=["two"], durability="sync")
    assert (await decide(graph, saver, "t", claim.job_id, before=["two"])).action == "waiting"
    assert (await decide(graph, saver, "t", claim.job_id, after=["one"])).action == "waiting"
    assert (await decide(graph, saver, "t", claim.job_id, before=["one"], after=["two"])).action == "resume"


async def test_R2_a_task_whose_writes_are_saved_is_not_finished(desk: Desk) -> None:
    """`state.next` is empty then; `state.tasks` is not (a worker killed between the writes and the checkpoint)."""
    claim = await desk.claim("t")
    saver = desk.saver(claim)
    graph = two_steps().compile(checkpointer=saver)
    await graph.ainvoke({"said": []}, config("t", claim.job_id), durability="sync")
    newest = desk.view.rows("SELECT checkpoint_id FROM checkpoints ORDER BY 1 DESC LIMIT 1")[0]["checkpoint_id"]
    desk.view.rows("DELETE FROM checkpoints WHERE checkpoint_id = %s", newest)
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.next == ()
    assert (await decide(graph, saver, "t", claim.job_id)).action == "resume"
