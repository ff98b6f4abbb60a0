"""Reads a chat as the offline model sees it: who it is to be, what was asked, what its tools have answered so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model wants made."""

    name: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says next: text, or calls; an answer without calls ends the run."""

    text: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A tool call that was made and what came back; ``failed`` also where nothing did."""

    name: str
    args: dict[str, Any]
    content: str
    failed: bool
    #: A person's: `approve`, `edit` (then `args` are theirs) or `reject`; empty where nobody was asked.
    decision: str = ""
    reason: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The answer as an object; empty where it is none."""
        try:
            answer = json.loads(self.content) if not self.failed else {}
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}


@dataclass(frozen=True, slots=True)
class Conversation:
    """One chat from its last question on; ``turns`` are the model's replies since then, with what their calls gave."""

    system: str
    tools: frozenset[str]
    question: str
    earlier_questions: tuple[str, ...] = ()
    turns: tuple[tuple[Step, ...], ...] = field(default=())

    def steps(self, name: str) -> list[Step]:
        """Give the calls of one tool since the question, in order, failed ones too."""
        return [step for turn in self.turns for step in turn if step.name == name]

    def rejected(self, name: str) -> list[str]:
        """Give the reasons for which a person rejected calls of one tool; empty where none was given."""
        return [step.reason for step in self.steps(name) if step.decision == "reject"]


def read_conversation(messages: Sequence[BaseMessage], tools: frozenset[str]) -> Conversation:
    """Read a chat; what it does not understand it leaves out."""
    questions = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    start = questions[-1] if questions else 0
    results = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    asked = [messages[place].text.strip() for place in questions]
    return Conversation(
        system="\n".join(message.text for message in messages if isinstance(message, SystemMessage)),
        tools=tools,
        question=asked[-1] if asked else "",
        earlier_questions=tuple(asked[:-1]),
        turns=tuple(
            tuple(_step(call, results) for call in message.tool_calls)
            for message in messages[start:]
            if isinstance(message, AIMessage) and message.tool_calls
        ),
    )


def _step(call: Any, results: dict[str, ToolMessage]) -> Step:
    result = results.get(call["id"] or "")
    failed = result is None or result.status == "error"
    kept = result.artifact if result is not None and isinstance(result.artifact, dict) else {}
    return Step(
        call["name"],
        kept.get("args", call["args"]),
        result.text if result is not None else "",
        failed,
        str(kept.get("decision", "")),
        str(kept.get("reason", "")),
    )
