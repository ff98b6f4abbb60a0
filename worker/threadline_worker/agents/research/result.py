"""Turns the final values of a research run into its result; every citation in it resolves to a listed source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages

from threadline_worker.agents.research.citations import check_citations

REPORT_PATH = "/report.md"
# What deepagents puts aside for itself; no work of the agent.
_INTERNAL = re.compile(r"^/(large_tool_results|conversation_history|blobs)/")


@dataclass(frozen=True, slots=True)
class ResearchResult:
    """``data`` is the contract's ``{"report", "sources", "files"}``, ready for JSON.

    ``removed_citations`` are those that named no source, for the worker's log.
    """

    data: dict[str, Any]
    removed_citations: tuple[str, ...]


def research_result(values: Mapping[str, Any]) -> ResearchResult:
    """Make the result from a run's final state; parts that a run never reached are empty.

    The report is ``/report.md`` where this run wrote it (or the thread has seen no other question), else the last
    answer. In ``files`` it stands in its checked form.
    """
    texts = {path: _text(data) for path, data in (values.get("files") or {}).items() if not _INTERNAL.match(path)}
    messages = convert_to_messages(values.get("messages") or [])
    from_file = REPORT_PATH in texts and _report_is_of_this_run(messages)
    report = check_citations(texts[REPORT_PATH] if from_file else _last_answer(messages), values.get("sources") or {})
    if from_file:
        texts[REPORT_PATH] = report.text
    sources = [
        {"id": str(number), "title": source["title"], "location": source["location"]}
        for number, source in enumerate(report.sources, start=1)
    ]
    return ResearchResult({"report": report.text, "sources": sources, "files": texts}, report.removed)


def _text(data: Any) -> str:
    content = data.get("content", "") if isinstance(data, Mapping) else data
    return "\n".join(map(str, content)) if isinstance(content, list) else str(content)


def _report_is_of_this_run(messages: Sequence[BaseMessage]) -> bool:
    """Tell whether the report belongs to the last question: a thread keeps the files of earlier ones."""
    questions = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if len(questions) <= 1:
        return True
    run = messages[questions[-1] :]
    failed = {message.tool_call_id for message in run if isinstance(message, ToolMessage) and message.status == "error"}
    return any(
        call["id"] not in failed and _writes_report(call)
        for message in run
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    )


def _writes_report(call: Any) -> bool:
    return call["name"] in {"write_file", "edit_file"} and f"/{call['args'].get('file_path', '')}".endswith(REPORT_PATH)


def _last_answer(messages: Sequence[BaseMessage]) -> str:
    answers = (message.text for message in reversed(messages) if isinstance(message, AIMessage))
    return next((answer for answer in answers if answer.strip()), "")
