"""The offline model plays each part from the chat alone, says the same again, streams, and always comes to an end."""

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from threadline_worker.agents.offline.findings import Findings, read_findings, write_findings
from threadline_worker.agents.offline.model import MAX_TURNS, OfflineChatModel
from threadline_worker.agents.offline.ranking import Claim
from threadline_worker.agents.research.prompts import CRITIC_PROMPT, MAIN_PROMPT, RESEARCHER_PROMPT


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}


LEADER = ["task", "write_todos", "write_file", "read_file", "ls", "search_corpus"]
RESEARCHER = ["search_corpus", "read_source", "write_file", "read_file"]
CRITIC = ["read_file", "read_source"]
PASSAGE = {
    "source_id": "S3f2a10bc",
    "title": "The Pool",
    "location": "pool.md",
    "text": "The pool of Weaver opens its connections in the background. It never blocks a caller for long.",
}


class Chat:
    """A chat in which tools answer from a table: name → function of the arguments, or a fixed text."""

    def __init__(self, system: str, question: str, tools: list[str], answers: dict[str, Any] | None = None) -> None:
        self.model = OfflineChatModel().bind_tools([named(name) for name in tools])
        self.messages = [SystemMessage(system), HumanMessage(question)]
        self.answers = answers or {}

    def step(self) -> AIMessage:
        reply = self.model.invoke(self.messages)
        self.messages.append(reply)
        for call in reply.tool_calls:
            answer = self.answers.get(call["name"], "done")
            text = answer(call["args"]) if callable(answer) else answer
            status = "error" if text.startswith("Error") else "success"
            self.messages.append(ToolMessage(text, tool_call_id=call["id"], status=status))
        return reply

    def run(self) -> list[AIMessage]:
        replies = [self.step()]
        while replies[-1].tool_calls:
            replies.append(self.step())
            assert len(replies) < 20
        return replies


def research(args: dict[str, Any]) -> str:
    if args["subagent_type"] == "critic":
        return "I checked 1 claims.\nNot covered: pooling"
    claim = Claim(PASSAGE["text"].split(". ")[0] + ".", "S3f2a10bc")
    findings = Findings("Weaver: pooling", claim, (claim,), {"S3f2a10bc": "The Pool"}, ())
    return write_findings(findings, {"S3f2a10bc": "pool.md"})


def calls(reply: AIMessage) -> list[str]:
    return [call["name"] for call in reply.tool_calls]


def test_the_leader_plans_delegates_has_it_checked_reports_and_remembers() -> None:
    chat = Chat(MAIN_PROMPT, "What does Weaver offer for pooling?", LEADER, {"task": research, "ls": "[]"})
    replies = chat.run()
    assert [calls(reply) for reply in replies] == [
        ["write_todos"],
        ["ls"],
        ["task", "task", "task"],
        ["write_todos", "write_file"],
        ["task"],
        ["write_todos", "write_file"],
        ["write_todos", "write_file"],
        [],
    ]
    report = replies[5].tool_calls[1]["args"]
    assert report["file_path"] == "/report.md"
    assert "opens its connections in the background. [S3f2a10bc]" in report["content"]
    assert report["content"].count("- **The Pool** – ") == 1  # three researchers said the same
    assert "speaks of: pooling" in report["content"]
    assert replies[6].tool_calls[1]["args"]["file_path"].startswith("/memories/what-does-weaver-offer")


def test_the_leader_reads_what_it_remembers_on_the_topic_only() -> None:
    listed = "['/memories/weaver-pools-abcdef.md', '/memories/looms-123456.md']"
    read = "@@ lines 1-2 of 2 @@\n# How large are Weaver pools?\n\n- x"
    answers = {"task": research, "ls": listed, "read_file": read}
    replies = Chat(MAIN_PROMPT, "What does Weaver offer for pooling?", LEADER, answers).run()
    assert [call["args"]["file_path"] for call in replies[2].tool_calls] == ["/memories/weaver-pools-abcdef.md"]
    assert "- How large are Weaver pools?" in replies[6].tool_calls[1]["args"]["content"]


@pytest.mark.parametrize("broken", ["task", "ls", "write_file", "read_file", "write_todos"])
def test_the_leader_goes_on_when_a_tool_fails(broken: str) -> None:
    answers = {"task": research, "ls": "['/memories/weaver-a.md']", broken: "Error: broken"}
    replies = Chat(MAIN_PROMPT, "What does Weaver offer for pooling?", LEADER, answers).run()
    said = replies[-1].text
    assert ("# What does Weaver offer" in said) == (broken == "write_file")  # the answer is the report then
    assert said


def test_the_leader_asks_for_words_where_there_are_none() -> None:
    assert "no words" in Chat(MAIN_PROMPT, "?!", LEADER).run()[-1].text


TASK = """Part 1 of 3, question 1 of this conversation.
Sub-question: Weaver: pooling
Whole question: What does Weaver offer for pooling?
Look for: Weaver pooling
Must mention: Weaver"""


def searched(*hits: dict[str, Any]) -> str:
    return json.dumps({"results": [{**hit, "snippet": hit["text"]} for hit in hits]})


def test_the_researcher_searches_reads_notes_and_cites() -> None:
    answers = {"search_corpus": searched(PASSAGE), "read_source": json.dumps(PASSAGE)}
    replies = Chat(RESEARCHER_PROMPT, TASK, RESEARCHER, answers).run()
    assert [sorted(set(calls(reply))) for reply in replies] == [["search_corpus"], ["read_source"], ["write_file"], []]
    assert [call["args"]["query"] for call in replies[0].tool_calls] == ["Weaver pooling", "pooling"]
    findings = read_findings(replies[-1].text, "")
    assert findings.claims[0] == Claim("The pool of Weaver opens its connections in the background.", "S3f2a10bc")
    assert findings.titles == {"S3f2a10bc": "The Pool"}
    assert replies[-1].text in replies[2].tool_calls[0]["args"]["content"]


def test_the_researcher_quotes_the_web_where_that_is_what_there_is() -> None:
    hit = {**PASSAGE, "source_id": "W0a1b2c3d", "location": "https://weaver.example"}
    replies = Chat(RESEARCHER_PROMPT, TASK, ["web_search", "write_file"], {"web_search": searched(hit)}).run()
    assert "[W0a1b2c3d]" in replies[-1].text


@pytest.mark.parametrize(
    "answers",
    [
        {"search_corpus": searched()},
        {"search_corpus": "Error: broken"},
        {"search_corpus": "not json"},
        {"search_corpus": '{"results": [1, {}]}'},
        {"search_corpus": "[]"},
    ],
)
def test_the_researcher_says_that_nothing_was_found(answers: dict[str, Any]) -> None:
    replies = Chat(RESEARCHER_PROMPT, TASK, RESEARCHER, answers).run()
    assert "Nothing was found." in replies[-1].text
    assert "No source speaks of: Weaver, pooling" in replies[-1].text


def test_the_researcher_falls_back_on_snippets_where_reading_fails() -> None:
    answers = {"search_corpus": searched(PASSAGE), "read_source": "Error: gone"}
    assert "[S3f2a10bc]" in Chat(RESEARCHER_PROMPT, TASK, RESEARCHER, answers).run()[-1].text


def test_the_critic_finds_what_is_uncited_repeated_and_missing() -> None:
    draft = (
        "@@ lines 1-5 of 5 @@\n# What of pooling?\n\n- The pool opens its connections early. [S3f2a10bc]\n"
        "- The pool opens all its connections early. [S00000001]\n- The moon is made of cheese."
    )
    task = "Draft: /draft.md\nQuestion: What of pooling?\nTerms: pooling Weaver"
    replies = Chat(CRITIC_PROMPT, task, CRITIC, {"read_file": draft}).run()
    assert calls(replies[0]) == ["read_file"]
    assert replies[1].text.splitlines() == [
        "I checked 3 claims.",
        "Remove, said before: - The pool opens all its connections early. [S00000001]",
        "Remove, no citation: - The moon is made of cheese.",
        "Not covered: Weaver",
    ]


def test_the_critic_says_when_it_could_not_read() -> None:
    task = "Draft: /draft.md\nQuestion: x\nTerms: y"
    assert "could not be read" in Chat(CRITIC_PROMPT, task, CRITIC, {"read_file": "Error: gone"}).run()[-1].text


def test_findings_come_back_as_they_were_written() -> None:
    claims = (Claim("One - with a dash and [brackets].", "S3f2a10bc"), Claim("Two, <odd> & more.", "W0a1b2c3d"))
    findings = Findings(
        "A: heading",
        claims[1],
        claims,
        {"S3f2a10bc": "Pool <x>", "W0a1b2c3d": "[T]"},
        ("a", "b"),
        Claim("a = 1\n- b", "S3f2a10bc"),
    )
    assert read_findings(write_findings(findings, {"S3f2a10bc": "a.md", "W0a1b2c3d": "https://x"}), "") == findings


@pytest.mark.parametrize(
    ("question", "tools"),
    [
        ("Summarise: The pool is large. The sky is blue today.", []),
        ("", []),
        ("Hello", ["get_weather"]),
        ("x " * 10_000, []),
    ],
)
def test_in_any_other_graph_it_answers_briefly_and_calls_nothing(question: str, tools: list[str]) -> None:
    replies = Chat("You are a helpful assistant.", question, tools).run()
    assert len(replies) == 1
    assert 0 < len(replies[0].text) < 2000
    assert "No language model" in replies[0].text


def test_a_graph_that_feeds_it_its_own_calls_for_ever_comes_to_an_end() -> None:
    messages = [SystemMessage(MAIN_PROMPT), HumanMessage("What does Weaver offer?")]
    for number in range(MAX_TURNS):
        call = {"name": "ls", "args": {"path": "/"}, "id": f"c{number}"}
        messages += [AIMessage("", tool_calls=[call]), ToolMessage("[]", tool_call_id=f"c{number}")]
    assert not OfflineChatModel().bind_tools([named(name) for name in LEADER]).invoke(messages).tool_calls


async def test_streaming_gives_the_same_message_in_pieces_that_share_an_id() -> None:
    @tool
    def ls(path: str) -> str:
        """List."""
        return path

    others = [named(name) for name in LEADER if name != "ls"]
    model = OfflineChatModel().bind_tools([ls, *others])
    messages = [SystemMessage(MAIN_PROMPT), HumanMessage("What does Weaver offer for pooling?")]
    pieces = [piece async for piece in model.astream(messages)]
    whole: Any = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    direct = model.invoke(messages)
    assert isinstance(whole, AIMessageChunk)
    assert len(pieces) > 5
    assert len({piece.id for piece in pieces}) == 1
    assert (whole.id, whole.text, whole.tool_calls) == (direct.id, direct.text, direct.tool_calls)
    assert whole.usage_metadata == direct.usage_metadata
    assert direct.usage_metadata
    assert direct.usage_metadata["input_tokens"] > 100
    assert direct.response_metadata["model_name"] == "offline"
    assert await model.ainvoke(messages) == direct


def test_the_same_chat_gives_the_same_ids_and_a_longer_one_others() -> None:
    question = "What does Weaver offer for pooling?"
    one, two = (Chat(MAIN_PROMPT, question, LEADER, {"task": research}).run() for _ in range(2))
    assert one == two
    again = Chat(MAIN_PROMPT, question, LEADER, {"task": research})
    again.run()
    again.messages.append(HumanMessage(question))
    second = again.run()
    ids = {call["id"] for reply in [*one, *second] for call in reply.tool_calls}
    assert len(ids) == sum(len(reply.tool_calls) for reply in [*one, *second])
