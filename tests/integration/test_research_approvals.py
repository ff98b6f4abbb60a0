"""A person approves the plan and the report of the research agent, and no model gets round it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from support.desk import LedgerView
from support.nursery import called
from support.openai_server import OpenAIServer, Reply
from support.research import offline_settings, write_corpus
from threadline.errors import InvalidJob
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.research.approvals import MAX_REJECTIONS
from threadline_worker.agents.research.graph import build_research
from threadline_worker.agents.research.result import research_result
from threadline_worker.agents.research.settings import ResearchSettings

Graph = CompiledStateGraph[Any, Any, Any, Any]
QUESTION = "What does Weaver do when its pool is exhausted?"
APPROVE = {"type": "approve"}


class Thread:
    """A run, and what it asks."""

    def __init__(self, graph: Graph, **configurable: Any) -> None:
        self._graph = graph.copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
        self._config: Any = {"configurable": {"thread_id": "t", **configurable}, "recursion_limit": 200}

    async def go(self, given: Any) -> dict[str, Any] | None:
        """The question that it ends with; None at its end."""
        context = {"user_id": "u", "job_id": "j", "thread_id": "t"}
        await self._graph.ainvoke(given, self._config, context=context, durability="sync")
        asked = (await self._graph.aget_state(self._config)).interrupts
        assert len(asked) <= 1
        self.asking = asked[0].id if asked else ""
        return asked[0].value if asked else None

    async def ask(self, question: str = QUESTION) -> dict[str, Any] | None:
        return await self.go({"messages": [{"role": "user", "content": question}]})

    async def decide(self, decision: dict[str, Any]) -> dict[str, Any] | None:
        return await self.answer({"decisions": [decision]})

    async def answer(self, value: Any) -> dict[str, Any] | None:
        return await self.go(Command(resume={self.asking: value}))

    async def values(self) -> dict[str, Any]:
        return dict((await self._graph.aget_state(self._config)).values)

    async def calls(self, name: str) -> int:
        """How often a tool was called and did not refuse."""
        return sum(
            message.type == "tool" and message.name == name and message.status != "error"
            for message in (await self.values())["messages"]
        )

    async def report(self) -> str:
        return str(research_result(await self.values()).data["report"])


def request_of(asked: dict[str, Any] | None) -> dict[str, Any]:
    assert asked is not None
    [request] = asked["action_requests"]
    return dict(request)


def plan_of(asked: dict[str, Any] | None) -> list[str]:
    return [todo["content"] for todo in request_of(asked)["args"]["todos"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return build_research(offline_settings(tmp_path_factory.mktemp("research")))


async def test_nothing_is_asked_by_itself(built: Graph) -> None:
    thread = Thread(built)
    assert await thread.ask() is None
    assert (await thread.report()).startswith(f"# {QUESTION}")


def test_it_adds_no_node_that_a_worker_of_another_release_would_not_know(built: Graph) -> None:
    assert set(built.nodes) == {"__start__", "model", "tools", *(name for name in built.nodes if "." in name)}
    assert not [name for name in built.nodes if "Approvals" in name]


async def test_an_approved_plan_and_report_are_the_same_as_without_a_person(built: Graph) -> None:
    unasked, thread = Thread(built), Thread(built, approve_plan=True, approve_publish=True)
    await unasked.ask()
    asked = await thread.ask()
    assert request_of(asked)["name"] == "write_todos"
    assert "todos" not in await thread.values()
    asked = await thread.decide(APPROVE)
    request = request_of(asked)
    assert request["args"]["file_path"] == "/report.md"
    assert "/report.md" not in (await thread.values())["files"]
    assert await thread.answer(value=True) is None
    assert await thread.report() == await unasked.report()


async def test_a_rejected_plan_is_made_anew_with_what_was_said(built: Graph) -> None:
    thread = Thread(built, approve_plan=True)
    before = plan_of(await thread.ask())
    after = plan_of(await thread.decide({"type": "reject", "message": "Also look at Spindle."}))
    assert after == [*before[:-3], "Research: Also look at Spindle.", *before[-3:]]
    assert plan_of(await thread.answer(value=False)) == before
    assert await thread.decide(APPROVE) is None
    assert await thread.calls("task") == len(before) - 4 + 1  # and the critic


@pytest.mark.parametrize(("subject", "word"), [("plan", "plan"), ("publish", "report")])
async def test_after_three_rejections_it_ends_without_a_report(built: Graph, subject: str, word: str) -> None:
    thread = Thread(built, **{f"approve_{subject}": True})
    asked = await thread.ask()
    for number in range(MAX_REJECTIONS):
        assert asked is not None
        asked = await thread.decide({"type": "reject", "message": f"no {number}"})
    assert asked is None
    assert f"its {word} was rejected 3 times. Reasons: no 0; no 1; no 2" in await thread.report()
    assert "/report.md" not in (await thread.values()).get("files", {})
    assert (await thread.calls("task") == 0) == (subject == "plan")
    # The next question begins anew.
    assert await thread.ask("What is Spindle?") is not None


async def test_an_edited_plan_is_what_is_researched(built: Graph) -> None:
    thread = Thread(built, approve_plan=True)
    todos = request_of(await thread.ask())["args"]["todos"]
    theirs = [todos[0], {"content": "Research: the size of Spindle", "status": "pending"}, *todos[-2:]]
    edit = {"type": "edit", "edited_action": {"name": "write_todos", "args": {"todos": theirs}}}
    assert await thread.decide(edit) is None
    values = await thread.values()
    tasks = [call["args"]["description"] for message in values["messages"] if message.type == "ai"
             for call in message.tool_calls if call["name"] == "task"]  # fmt: skip
    assert len(tasks) == 2
    assert "Sub-question: the size of Spindle" in tasks[0]
    assert any("A person changed the plan" in message.text for message in values["messages"])
    assert "Spindle" in await thread.report()


async def test_a_rejected_report_is_rewritten_and_an_edited_one_is_published(built: Graph) -> None:
    thread = Thread(built, approve_publish=True)
    first = request_of(await thread.ask())["args"]["content"]
    again = request_of(await thread.decide({"type": "reject", "message": "Name the author."}))["args"]
    assert "Name the author." in again["content"]
    assert "Name the author." not in first
    edited = {"name": "write_file", "args": {**again, "content": "# Mine\n"}}
    assert await thread.decide({"type": "edit", "edited_action": edited}) is None
    assert await thread.report() == "# Mine\n"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("yes", "answer with"),
        ({"decisions": []}, "answer with"),
        ({"decisions": [{"type": "respond", "message": "x"}]}, "answer with"),
        ({"decisions": [{"type": "edit"}]}, "edited_action"),
        ({"decisions": [{"type": "edit", "edited_action": {"name": "task", "args": {}}}]}, "another tool"),
        ({"decisions": [{"type": "edit", "edited_action": {"args": {"todos": [{"content": 1}]}}}]}, "does not fit"),
        ({"decisions": [{"type": "edit", "edited_action": {"args": {"x": 1}}}]}, "was not given 'x'"),
    ],
)
async def test_an_answer_that_cannot_be_followed_is_asked_again(built: Graph, answer: Any, problem: str) -> None:
    thread = Thread(built, approve_plan=True)
    before = request_of(await thread.ask())
    asked = await thread.answer(answer)
    assert request_of(asked) == before
    assert problem in str(asked["problem"] if asked else "")
    assert request_of(await thread.answer("again"))  # as often as it takes
    assert await thread.answer(value=True) is None


async def test_an_edit_cannot_send_the_report_elsewhere(built: Graph) -> None:
    thread = Thread(built, approve_publish=True)
    await thread.ask()
    for args, problem in (({"file_path": "/memories/x.md"}, "another file"), ({"content": 1}, "type")):
        asked = await thread.decide({"type": "edit", "edited_action": {"args": args}})
        assert problem in str(asked["problem"] if asked else "")


async def test_a_setting_asks_in_every_job_and_a_job_cannot_take_that_away(tmp_path: Path) -> None:
    settings = replace(offline_settings(tmp_path), approve_plan=True)
    thread = Thread(build_research(settings), approve_plan=False, approve_publish=True)
    assert request_of(await thread.ask())["name"] == "write_todos"
    assert request_of(await thread.decide(APPROVE))["name"] == "write_file"


@pytest.mark.parametrize("wrong", ["true", 1, [], None])
async def test_an_option_that_is_no_truth_value_is_refused(built: Graph, wrong: Any) -> None:
    with pytest.raises(InvalidJob, match="approve_publish is true or false"):
        await Thread(built, approve_publish=wrong).ask()


def speaking_to(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Graph:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    return build_research(replace(offline_settings(folder), model="openai:scripted"))


TODOS = {"todos": [{"content": "all", "status": "pending"}]}
REPORT = ("write_file", {"file_path": "/./report.md", "content": "# Sly"})


async def test_a_model_cannot_go_round_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It works before its plan is approved, and publishes by another path, an edit, a subagent, an answer."""
    task = ("task", {"description": "x", "subagent_type": "general-purpose"})
    turns = [
        Reply(calls=[task, ("ls", {"path": "/"})]),
        Reply(calls=[("write_todos", TODOS), task]),
        Reply(calls=[task]),
        Reply(calls=[REPORT]),
        Reply(calls=[("edit_file", {"file_path": "report.md", "old_string": "Sly", "new_string": "Slyer"})]),
        Reply(calls=[("delete", {"file_path": "/report.md"})]),
        Reply(text="# The whole report"),
    ]

    def script(body: dict[str, Any]) -> Reply:
        if "write_todos" in {tool["function"]["name"] for tool in body.get("tools") or []}:
            return turns[sum(message["role"] == "assistant" for message in body["messages"])]
        answered = any(message["role"] == "tool" for message in body["messages"])
        writes = [REPORT, ("write_file", {"file_path": "/memories/evil.md", "content": "x"})]
        return Reply(text="Done.") if answered else Reply(calls=writes)

    with OpenAIServer(script) as server:
        thread = Thread(speaking_to(server, monkeypatch, tmp_path), approve_plan=True, approve_publish=True)
        assert request_of(await thread.ask())["name"] == "write_todos"
        assert await thread.calls("task") == await thread.calls("ls") == 0
        assert request_of(await thread.decide(APPROVE))["args"]["file_path"] == "/./report.md"
        assert await thread.calls("task") == 1
        assert "/report.md" not in (await thread.values()).get("files", {})
        for expected in ("edit_file", "write_file"):
            assert request_of(await thread.decide({"type": "reject"}))["name"] == expected
        stopped = await thread.decide({"type": "reject", "message": "enough"})
    assert stopped is None
    assert "rejected 3 times" in await thread.report()
    assert "/report.md" not in (await thread.values()).get("files", {})


async def test_a_model_cannot_put_something_else_in_the_place_of_what_was_approved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns = [
        Reply(calls=[REPORT]),
        Reply(calls=[("delete", {"file_path": "/report.md"})]),
        Reply(calls=[("write_file", {"file_path": "report.md", "content": "# Other"})]),
        Reply(text="# Another"),
    ]
    with OpenAIServer(turns) as server:
        thread = Thread(speaking_to(server, monkeypatch, tmp_path), approve_publish=True)
        await thread.ask()
        assert request_of(await thread.decide(APPROVE))["args"]["content"] == "# Other"
        assert await thread.decide({"type": "reject"}) is None
    assert await thread.report() == "# Sly\n"


def test_the_setting_names_what_it_takes() -> None:
    for given, plan, publish in (("", False, False), ("plan", True, False), (" publish , plan", True, True)):
        settings = ResearchSettings.from_env({"THREADLINE_RESEARCH_APPROVE": given})
        assert (settings.approve_plan, settings.approve_publish) == (plan, publish)
    with pytest.raises(AgentConfigError, match="plan, publish or plan,publish; it is 'plans'"):
        ResearchSettings.from_env({"THREADLINE_RESEARCH_APPROVE": "plans"})


POINTS = os.environ.get("CRASH_POINTS", "2")


def test_R2_an_approved_plan_is_followed_once_wherever_a_worker_is_killed(
    env: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    """On the way to the question, while it is asked, while its answer is taken, and behind it."""
    sample = [] if POINTS == "all" else ["--sample", POINTS, "--seed", os.environ.get("CRASH_SEED", "1")]
    arguments = ["research", json.dumps(QUESTION), "--answer", json.dumps({"decisions": [APPROVE]}), *sample]
    environment = {
        **env,
        "THREADLINE_AGENTS": "loaded=threadline_worker.agents.research.graph:build_research",  # once, before all forks
        "THREADLINE_CORPUS": str(write_corpus(tmp_path / "corpus")),
        "THREADLINE_RESEARCH_APPROVE": "plan",
        "THREADLINE_HEARTBEAT_SECONDS": "0.2",
        "THREADLINE_LEASE_SECONDS": "5",
    }
    done = called(arguments, environment, module="support.crash_sweep", timeout=1800)
    assert done.returncode == 0, done.stderr
    view = LedgerView(database_url)
    *killed, undisturbed = [json.loads(line) for line in done.stdout.splitlines()]

    def end(found: dict[str, Any]) -> Any:
        rows = [view.job(job) for job in found["jobs"]]
        questions = [[request_of(asked["value"]) for asked in row["interrupts"] or []] for row in rows]
        return [row["state"] for row in rows], questions, rows[-1]["result"]

    states, (asked, nothing), result = end(undisturbed)
    assert (states, len(asked), nothing) == (["interrupted", "succeeded"], 1, [])
    assert result["report"].startswith(f"# {QUESTION}")
    assert len(killed) >= int(POINTS if POINTS != "all" else 40)
    for point in killed:
        assert point["killed"], point
        assert end(point) == end(undisturbed), f"killed at {point['point']}"
