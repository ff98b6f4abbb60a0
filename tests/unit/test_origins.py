"""Whose a part of the stream is: from what LangGraph says beside it, and None where it does not say."""

from __future__ import annotations

from typing import Any

from threadline_worker.origins import Loaded, Origin, Origins, Part


class Stream:
    """Parts as LangGraph yields them."""

    def __init__(self, **options: Any) -> None:
        self.origins = Origins("main", **options)
        self.parts: list[Part] = []

    def __call__(self, kind: str, data: Any, *ns: str) -> Origin:
        self.parts += self.origins.take(kind, ns, data)
        return self.parts[-1].origin

    def begin(self, task: str, node: str, *ns: str, agent: str | None = "boss", step: int | None = None) -> Origin:
        metadata = {} if agent is None else {"lc_agent_name": agent}
        if step is not None:
            self.origins.steps.on_chain_start(
                {}, {}, metadata={"langgraph_checkpoint_ns": "|".join([*ns, f"{node}:{task}"]), "langgraph_step": step}
            )
        return self("tasks", {"id": task, "name": node, "input": None, "triggers": [], "metadata": metadata}, *ns)

    def end(self, task: str, node: str, *ns: str) -> Origin:
        return self("tasks", {"id": task, "name": node, "result": {}, "error": None, "interrupts": []}, *ns)


def test_an_update_is_its_tasks() -> None:
    stream = Stream()
    stream.begin("t1", "model", step=4)
    assert stream("updates", {"model": {}}) == Origin("main", "model", "t1", 4)


def test_of_several_tasks_the_one_whose_result_follows() -> None:
    stream = Stream()
    for task in ("t1", "t2", "t3"):
        stream.begin(task, "tools", step=2)
    before = len(stream.parts)
    list(stream.origins.take("updates", (), {"tools": 2}))
    assert stream.origins.holds
    assert len(stream.parts) == before
    stream.end("t2", "tools")
    assert not stream.origins.holds
    assert [(part.kind, part.origin.task) for part in stream.parts[before:]] == [("updates", "t2"), ("tasks", "t2")]


def test_what_nothing_explains_is_let_go_in_its_order() -> None:
    stream = Stream()
    for task in ("t1", "t2"):
        stream.begin(task, "tools", step=2)
    list(stream.origins.take("updates", (), {"tools": 1}))
    stream("custom", "x")
    list(stream.origins.take("updates", (), {"__interrupt__": ()}))
    stream.parts += stream.origins.rest()
    assert [(part.kind, part.origin.node, part.origin.task) for part in stream.parts[2:]] == [
        ("updates", "tools", None),
        ("custom", "tools", None),
        ("updates", None, None),
    ]


def test_saved_results_are_told_again_in_the_order_of_their_tasks() -> None:
    """Of four parallel tasks the second and the fourth had ended before the crash."""
    stream = Stream(anew=False)
    writes = [("t4", "messages", 1), ("t2", "messages", 1), ("t3", "__error__", 1), ("t1", "__interrupt__", 1)]
    stream.origins.loaded(Loaded.of("", 2, writes))
    assert stream("values", {}).step == 2
    for task in ("t1", "t2", "t3", "t4"):
        stream.begin(task, "tools")
    again = {"tools": {}, "__metadata__": {"cached": True}}
    assert [stream("updates", again).task for _ in range(2)] == ["t2", "t4"]
    assert [part.origin.step for part in stream.parts[-2:]] == [3, 3]
    list(stream.origins.take("updates", (), {"tools": {}}))
    assert stream.end("t3", "tools") == Origin("main", "tools", "t3", 3)


def test_a_subagent_has_its_name_and_a_plain_subgraph_its_callers() -> None:
    stream = Stream()
    stream.begin("t1", "tools", step=3)
    # Its name is heard when it begins, before its first task.
    stream.origins.steps.on_chain_start(
        {}, {}, metadata={"langgraph_checkpoint_ns": "tools:t1", "langgraph_step": 3, "lc_agent_name": "helper"}
    )
    assert stream("checkpoints", {"metadata": {"step": -1}}, "tools:t1") == Origin("helper", step=-1)
    assert stream.begin("t2", "model", "tools:t1", agent="helper").agent == "helper"
    assert stream.begin("t3", "n", "tools:t1", "model:t2", agent="helper").agent == "helper"
    assert stream.begin("t4", "n", "plain:t9", agent="boss").agent == "main"
    assert stream.begin("t5", "n", "unnamed:t9", agent=None).agent == "main"


def test_a_tool_is_known_by_its_call() -> None:
    stream = Stream()
    for number in (1, 2):
        call = {"name": "ping", "args": {}, "id": f"c{number}"}
        stream("tasks", {"id": f"t{number}", "name": "tools", "input": {"tool_call": call}, "triggers": []})
    assert stream("tools", {"event": "tool-started", "tool_call_id": "c2"}).task == "t2"
    assert stream("tools", {"event": "tool-started", "tool_call_id": "other"}) == Origin("main", "tools", None, None)


def test_messages_say_it_all() -> None:
    stream = Stream()
    metadata = {
        "langgraph_node": "model",
        "langgraph_step": 7,
        "langgraph_checkpoint_ns": "tools:a|model:b",
        "lc_agent_name": "helper",
    }
    assert stream("messages", (object(), metadata), "tools:a") == Origin("helper", "model", "b", 7)


def test_the_step_behind_an_input() -> None:
    """It is step -1 or the one behind the thread's head; what is done with it is the next."""
    assert Stream()("values", {}).step == 0
    later = Stream()
    later.origins.loaded(Loaded.of("", 5, None))
    later.origins.committed("", 6)
    assert later("values", {}).step == 7


def test_what_ran_within_a_task_is_forgotten_with_it() -> None:
    stream = Stream()
    for number in range(50):
        stream.begin(f"t{number}", "tools", step=1)
        stream.begin(f"i{number}", "model", f"tools:t{number}", agent="helper", step=1)
        stream.end(f"i{number}", "model", f"tools:t{number}")
        stream.end(f"t{number}", "tools")
    assert len(stream.origins._scopes) == 1
    assert not stream.origins.steps.names


def test_nothing_of_any_shape_breaks_it() -> None:
    stream = Stream()
    for kind in ("tasks", "updates", "messages", "tools", "checkpoints", "debug", "values", "custom", "later"):
        for data in (None, 7, "x", [], {}, {"metadata": None}, ({}, None), (None, {}), {"payload": {}, "step": None}):
            stream(kind, data, "a")
    assert all(part.origin.agent == "main" for part in stream.parts)
