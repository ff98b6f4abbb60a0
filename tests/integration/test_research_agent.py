"""The research agent end to end, on real files, with the offline model and with a server that speaks OpenAI's API."""

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.memory import InMemoryStore

from support.openai_server import OpenAIServer, Reply, scripted_research
from support.research import DOCUMENTS, offline_settings, run, values_of
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.research.graph import build_research
from threadline_worker.agents.research.package_corpus import write_package_descriptions
from threadline_worker.agents.research.result import research_result
from threadline_worker.memory import user_namespace

Graph = CompiledStateGraph[Any, Any, Any, Any]
QUESTION = "What does Weaver do when its pool is exhausted?"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return build_research(offline_settings(tmp_path_factory.mktemp("research")))


@pytest.fixture
def graph(built: Graph) -> Graph:
    return built.copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})


def letters(text: str) -> str:
    """Leave only what markup does not touch."""
    return re.sub(r"[\W_]+", "", re.sub(r"\]\([^)]*\)", "", text)).lower()


def cited_sentences(report: str) -> list[str]:
    body = report.partition("\n## Sources\n")[0]
    prose = re.sub(r"```[\s\S]*?```|^#.*$|^.* shows: .*$|\*\*.*?\*\* – ", "", body, flags=re.MULTILINE)
    return [sentence.strip(" -\n") for sentence in re.findall(r"([^\[\]]+?) \[\d+\]", prose)]


async def test_the_report_cites_what_the_sources_say_word_for_word(graph: Graph) -> None:
    parts = await run(graph, QUESTION)
    values = await values_of(graph)
    result = research_result(values)
    report = result.data["report"]
    assert report.startswith(f"# {QUESTION}\n")
    assert "A request for a connection fails after thirty seconds when the pool is exhausted. [1]" in report
    assert "No language model was used" in report
    assert "pip install" not in report
    assert result.removed_citations == ()
    numbers = {int(number) for number in re.findall(r"\[(\d+)\]", report.partition("\n## Sources\n")[0])}
    assert numbers == {int(source["id"]) for source in result.data["sources"]} == set(range(1, len(numbers) + 1))
    everything = letters(" ".join(DOCUMENTS.values()))
    quoted = cited_sentences(report)
    assert len(quoted) >= 5
    assert [sentence for sentence in quoted if letters(sentence) not in everything] == []
    assert {"/report.md", "/draft.md"} < set(result.data["files"])
    assert sum(path.startswith("/notes/") for path in result.data["files"]) == 3
    json.dumps(result.data)
    assert {todo["status"] for todo in values["todos"][:-1]} == {"completed"}
    steps = sum(part["type"] == "checkpoints" and not part["ns"] for part in parts)
    assert 15 <= steps <= 35


async def test_subagents_work_at_the_same_time_and_everything_streams(graph: Graph) -> None:
    parts = await run(graph, QUESTION)
    spaces = {part["ns"][0] for part in parts if part["ns"]}
    assert len(spaces) == 4  # three researchers and a critic
    delegating = next(
        message
        for message in (await values_of(graph))["messages"]
        if isinstance(message, AIMessage) and any(call["name"] == "task" for call in message.tool_calls)
    )
    assert [call["args"]["subagent_type"] for call in delegating.tool_calls] == ["researcher"] * 3
    pieces = [part["data"][0] for part in parts if part["type"] == "messages"]
    assert any(getattr(piece, "tool_call_chunks", None) for piece in pieces)
    ids = {piece.id for piece in pieces if isinstance(piece, AIMessage)}
    joined = [message for message in (await values_of(graph))["messages"] if isinstance(message, AIMessage)]
    assert {message.id for message in joined} <= ids
    assert all(message.usage_metadata and message.usage_metadata["output_tokens"] for message in joined)


async def test_ids_of_messages_and_calls_are_unique_in_a_thread_also_in_a_second_job(graph: Graph) -> None:
    first, second = await run(graph, QUESTION), await run(graph, QUESTION)
    assert first
    assert second
    messages = (await values_of(graph))["messages"]
    ids = [message.id for message in messages]
    calls = [call["id"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    inner = [
        call["id"]
        for part in [*first, *second]
        if part["type"] == "updates" and part["ns"]
        for update in part["data"].values()
        for message in (update or {}).get("messages", [])
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]
    assert len(ids) == len(set(ids))
    assert len(calls + inner) == len(set(calls + inner))


async def test_a_second_job_on_the_thread_answers_its_own_question(graph: Graph) -> None:
    await run(graph, QUESTION)
    await run(graph, "And how large is it?")
    report = research_result(await values_of(graph)).data["report"]
    assert report.startswith("# And how large is it?\n")
    assert "Weaver" in report
    assert f"- {QUESTION}" in report  # remembered


async def test_memories_are_of_their_user_alone(built: Graph) -> None:
    store, saver = InMemoryStore(), InMemorySaver()
    graph = built.copy({"checkpointer": saver, "store": store})
    await asyncio.gather(
        run(graph, QUESTION, thread="a", user="a@x.y"), run(graph, "What is Spindle?", thread="b", user="b@x.y")
    )
    of_a, of_b = (store.search(user_namespace("memories", user_id=user)) for user in ("a@x.y", "b@x.y"))
    assert [QUESTION in item.value["content"] for item in of_a] == [True]
    assert ["What is Spindle?" in item.value["content"] for item in of_b] == [True]
    await run(graph, "How large is the pool of Weaver?", thread="b2", user="b@x.y")
    assert "Asked before" not in research_result(await values_of(graph, "b2")).data["report"]
    await run(graph, "How large is the pool of Weaver?", thread="a2", user="a@x.y")
    assert f"- {QUESTION}" in research_result(await values_of(graph, "a2")).data["report"]


async def test_a_run_without_a_user_is_refused_rather_than_mixed(graph: Graph) -> None:
    with pytest.raises(AgentConfigError, match="user"):
        await run(graph, QUESTION, user="")


@pytest.mark.parametrize(
    "question",
    [
        "连接池满了怎么办？",
        "Zebra?",
        "?",
        "the of and",
        "x" * 5000,
        "The pool is large. " * 20_000,
        "Ω ∑ 🦓",
        "What\nis\n\nWeaver?",
    ],
)
async def test_any_question_ends_in_a_report(graph: Graph, question: str) -> None:
    await run(graph, question)
    result = research_result(await values_of(graph))
    assert result.data["report"].strip()
    assert result.removed_citations == ()
    if question == "Zebra?":
        assert "have nothing on this question" in result.data["report"]
        assert result.data["sources"] == []


async def test_killed_after_any_step_and_continued_it_ends_with_the_same_report(built: Graph) -> None:
    undisturbed = built.copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
    parts = await run(undisturbed, QUESTION)
    wanted = research_result(await values_of(undisturbed)).data
    steps = sum(part["type"] == "checkpoints" for part in parts)
    for step in range(1, steps, 2):  # of the leader and of its subagents; every other one, for time
        graph = built.copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
        await run(graph, QUESTION, stop_after=step)
        assert (await graph.aget_state({"configurable": {"thread_id": "t"}})).next
        await run(graph, None)
        assert research_result(await values_of(graph)).data == wanted, f"stopped after step {step}"


async def test_a_tool_that_breaks_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = offline_settings(tmp_path)
    graph = build_research(settings).copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
    index = next((tmp_path / "cache").glob("*.db"))
    index.write_bytes(b"not a database, " * 100)
    parts = await run(graph, QUESTION)
    failed = [
        message
        for part in parts
        if part["type"] == "updates"
        for update in part["data"].values()
        for message in (update or {}).get("messages", [])
        if isinstance(message, ToolMessage) and message.status == "error"
    ]
    assert any("The search index cannot be read" in message.text for message in failed)
    assert "have nothing on this question" in research_result(await values_of(graph)).data["report"]


async def test_subagents_may_write_notes_but_neither_memories_nor_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = ("/memories/evil.md", "/report.md", "/notes/fine.md")

    def script(body: dict[str, Any]) -> Any:
        answered = any(message["role"] == "tool" for message in body["messages"])
        if "task" in tools_of(body):
            return Reply(text="Done.") if answered else scripted_research(body)
        writes = [("write_file", {"file_path": path, "content": "x"}) for path in paths]
        return Reply(text="Done.") if answered else Reply(calls=writes)

    store = InMemoryStore()
    with OpenAIServer(script) as server:
        graph = speaking_to(server, monkeypatch, tmp_path, store)
        await run(graph, QUESTION)
    values = await values_of(graph)
    assert values["files"]["/notes/fine.md"]["content"] == "x"
    assert "/report.md" not in values["files"]
    assert store.search(user_namespace("memories", user_id="user@example.org")) == []


def tools_of(body: dict[str, Any]) -> Any:
    return {tool["function"]["name"] for tool in body.get("tools") or []}


def speaking_to(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: InMemoryStore | None = None
) -> Graph:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    settings = replace(offline_settings(tmp_path), model="openai:scripted")
    return build_research(settings).copy({"checkpointer": InMemorySaver(), "store": store or InMemoryStore()})


async def test_the_same_graph_runs_on_a_server_that_speaks_openais_api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with OpenAIServer(scripted_research) as server:
        graph = speaking_to(server, monkeypatch, tmp_path)
        server.fail(429, retry_after=0.01)
        server.fail(500)
        parts = await run(graph, QUESTION)
        assert server.statuses[:2] == [429, 500]  # the client's own two retries
        assert set(server.statuses[2:]) == {200}
        assert all(body["stream"] and body["stream_options"] == {"include_usage": True} for body in server.requests)
    result = research_result(await values_of(graph))
    assert "Weaver" in result.data["report"]
    assert "The moon is made of cheese.\n" in result.data["report"]
    assert result.removed_citations == ("S0badc0de",)
    assert [source["id"] for source in result.data["sources"]] == ["1"]
    pieces = [part["data"][0].text for part in parts if part["type"] == "messages" and not part["ns"]]
    assert "The report is written." in "".join(pieces)
    assert all(
        message.usage_metadata for message in (await values_of(graph))["messages"] if isinstance(message, AIMessage)
    )


@pytest.mark.parametrize(("status", "error"), [(429, openai.RateLimitError), (503, openai.InternalServerError)])
async def test_a_model_that_stays_away_fails_the_run_and_the_run_can_go_on_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, error: type[openai.APIStatusError]
) -> None:
    with OpenAIServer(scripted_research) as server:
        graph = speaking_to(server, monkeypatch, tmp_path)
        server.fail(status, retry_after=0.01, times=3)
        with pytest.raises(error) as failure:
            await run(graph, QUESTION)
        assert failure.value.response.headers["retry-after"] == "0.01"
        assert len(server.requests) == 3
        await run(graph, None)
    assert research_result(await values_of(graph)).data["sources"]


async def test_a_model_that_fails_inside_a_subagent_fails_the_run_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def script(body: dict[str, Any]) -> Any:
        return scripted_research(body) if "task" in tools_of(body) else Reply(status=500)

    with OpenAIServer(script) as server:
        graph = speaking_to(server, monkeypatch, tmp_path)
        with pytest.raises(openai.InternalServerError):
            await run(graph, QUESTION)
    assert "task" in tools_of(server.requests[0])
    assert "task" not in tools_of(server.requests[-1])


STRICT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.memory import InMemoryStore
from support.research import offline_settings, run, values_of
from threadline_worker.agents.research.graph import build_research
from threadline_worker.agents.research.result import research_result

async def main():
    graph = build_research(offline_settings(Path(sys.argv[2])))
    graph = graph.copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
    await run(graph, "What is Weaver?", stop_after=12)
    await run(graph, None)
    values = await values_of(graph)
    serde = JsonPlusSerializer()
    again = serde.loads_typed(serde.dumps_typed(values))
    assert again == values
    assert {type(source) for source in again["sources"].values()} == {dict}
    assert research_result(again).data["sources"]

asyncio.run(main())
"""


def test_the_state_passes_strict_serialisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    tests = next(path for path in sys.path if path.endswith("tests"))
    command = [sys.executable, "-W", "error", "-c", STRICT, tests, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "strict" not in ran.stderr.lower()
    assert "msgpack" not in ran.stderr.lower()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What does psycopg offer for connection pooling?", "optional connection pool package psycopg_pool"),
        ("How do I trace requests with OpenTelemetry in Python?", "OpenTelemetry"),
    ],
)
async def test_on_the_descriptions_of_the_installed_packages(tmp_path: Path, question: str, words: str) -> None:
    write_package_descriptions(tmp_path / "packages")
    settings = replace(offline_settings(tmp_path), corpus=tmp_path / "packages")
    graph = build_research(settings).copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
    await run(graph, question)
    result = research_result(await values_of(graph))
    assert words in result.data["report"]
    assert result.data["sources"]
    texts = "".join(letters(path.read_text()) for path in sorted((tmp_path / "packages").iterdir()))
    assert [quote for quote in cited_sentences(result.data["report"]) if letters(quote) not in texts] == []


async def test_the_offline_model_waits_between_its_words_when_asked_to(
    built: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("threadline_worker.agents.offline.model.asyncio.sleep", sleep)
    settings = replace(offline_settings(tmp_path), offline_tokens_per_second=50)
    graph = build_research(settings).copy({"checkpointer": InMemorySaver(), "store": InMemoryStore()})
    await run(graph, "Zebra?")
    assert len(waits) > 50
    assert set(waits) == {0.02}
