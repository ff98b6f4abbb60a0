"""The result of a run is JSON, and its report is that of the last question."""

import json
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from threadline_worker.agents.research.result import research_result

SOURCES = {"S00000001": {"id": "S00000001", "title": "The Pool", "location": "pool.md"}}


def written(text: str) -> dict[str, Any]:
    return {"content": text, "encoding": "utf-8", "created_at": "x", "modified_at": "x"}


def writing(call_id: str = "c1", status: str = "success") -> Any:
    call = {"name": "write_file", "args": {"file_path": "/report.md", "content": "…"}, "id": call_id}
    return [AIMessage("", tool_calls=[call]), ToolMessage("done", tool_call_id=call_id, status=status)]


def test_the_report_file_is_checked_and_its_sources_are_listed() -> None:
    result = research_result(
        {
            "messages": [HumanMessage("Q"), *writing(), AIMessage("Done.")],
            "files": {
                "/report.md": written("Claim. [S00000001] Other. [S99999999]"),
                "/notes/a.md": written("note"),
                "/large_tool_results/x": written("internal"),
            },
            "sources": SOURCES,
        }
    )
    report = "Claim. [1] Other.\n\n## Sources\n\n1. The Pool (pool.md)\n"
    assert result.data == {
        "report": report,
        "sources": [{"id": "1", "title": "The Pool", "location": "pool.md"}],
        "files": {"/report.md": report, "/notes/a.md": "note"},
    }
    assert result.removed_citations == ("S99999999",)
    json.dumps(result.data)


def test_without_the_file_the_last_answer_is_the_report() -> None:
    messages = [HumanMessage("Q"), AIMessage("Answer. [S00000001]"), AIMessage("")]
    assert research_result({"messages": messages, "sources": SOURCES}).data["report"].startswith("Answer. [1]")


def test_a_report_of_an_earlier_question_is_not_given_again() -> None:
    files = {"/report.md": written("Old report.")}
    earlier = [HumanMessage("Q"), *writing(), AIMessage("Done.")]
    values = {"messages": [*earlier, HumanMessage("Thanks"), AIMessage("You are welcome.")], "files": files}
    assert research_result(values).data["report"] == "You are welcome.\n"
    values["messages"] = [*earlier, HumanMessage("Q2"), *writing("c2", "error"), AIMessage("It could not be written.")]
    assert research_result(values).data["report"] == "It could not be written.\n"
    values["messages"] = [*earlier, HumanMessage("Q2"), *writing("c2"), AIMessage("Done.")]
    assert research_result(values).data["report"] == "Old report.\n"


def test_a_run_that_reached_nothing_has_an_empty_result() -> None:
    assert research_result({}).data == {"report": "\n", "sources": [], "files": {}}
