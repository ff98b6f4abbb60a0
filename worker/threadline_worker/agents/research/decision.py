"""Asks a person about one tool call, in the form of langchain's HumanInTheLoopMiddleware, until an answer is usable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from langchain.agents.middleware.todo import WriteTodosInput
from langchain_core.messages import ToolCall
from langgraph.types import interrupt
from pydantic import ValidationError

__all__ = ["Decision", "ask"]

Kind = Literal["approve", "edit", "reject"]
_KINDS: Final[tuple[Kind, ...]] = ("approve", "edit", "reject")
_FORM: Final = 'answer with {"decisions": [{"type": "approve"}]}; the type may also be "reject" or "edit"'


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` goes with a rejection and may be empty; `args` are the call's own after an edit."""

    kind: Kind
    reason: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)


class _Unusable(Exception):  # noqa: N818 - it never leaves this file
    """Why an answer cannot be followed, told to whoever gave it."""


def ask(call: ToolCall, description: str) -> Decision:
    """Wait for the person's decision. What cannot be followed is asked again, with `problem` in the question."""
    question: dict[str, Any] = {
        "action_requests": [{"name": call["name"], "args": call["args"], "description": description}],
        "review_configs": [{"action_name": call["name"], "allowed_decisions": list(_KINDS)}],
    }
    while True:
        answer = interrupt(question)
        try:
            return _read(answer, call)
        except _Unusable as problem:
            question = {**question, "problem": str(problem)}


def _read(answer: Any, call: ToolCall) -> Decision:
    if isinstance(answer, bool):
        return Decision("approve" if answer else "reject")
    decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
    if not (isinstance(decisions, list) and len(decisions) == 1 and isinstance(decisions[0], Mapping)):
        raise _Unusable(_FORM)
    match decisions[0]:
        case {"type": "approve"}:
            return Decision("approve")
        case {"type": "reject"} as rejected:
            return Decision("reject", reason=" ".join(str(rejected.get("message") or "").split()))
        case {"type": "edit", "edited_action": {"args": dict() as args, **action}}:
            return Decision("edit", args=_edited(call, action.get("name", call["name"]), args))
        case {"type": "edit"}:
            raise _Unusable('an edit has "edited_action": {"name": …, "args": {…}}')
    raise _Unusable(_FORM)


def _edited(call: ToolCall, name: Any, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The call's arguments with the person's; the tool, and the file that it writes, stay what was asked about."""
    if name != call["name"]:
        raise _Unusable(f"an edit can change what is given to {call['name']}, not make it another tool")
    path = call["args"].get("file_path")
    if args.get("file_path", path) != path:
        raise _Unusable(f"an edit can change the text, not write to another file than {path}")
    if unknown := sorted(args.keys() - call["args"].keys()):
        raise _Unusable(f"{call['name']} was not given {', '.join(map(repr, unknown))}")
    merged = {**call["args"], **args}
    if name == "write_todos":
        try:
            WriteTodosInput.model_validate(merged)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise _Unusable(f"the plan does not fit: {place}: {error.errors()[0]['msg']}") from error
    elif not all(isinstance(merged[key], type(value)) for key, value in call["args"].items()):
        raise _Unusable(f"each argument of {name} keeps its type")
    return merged
