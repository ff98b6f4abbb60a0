"""Nothing is researched before a person has approved the plan, nothing is published before one has approved the report.

It asks within the tool's own step (`write_todos`, and what writes the report), so the graph has the same nodes with and
without it: a job can be continued by a worker that was set up otherwise. What was decided stands in the messages alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from deepagents.backends.utils import validate_path
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langgraph.config import get_config
from langgraph.types import Command

from threadline.errors import InvalidJob
from threadline_worker.agents.research.decision import ask
from threadline_worker.agents.research.result import REPORT_PATH
from threadline_worker.agents.research.settings import Subject

__all__ = ["MAX_REJECTIONS", "Approvals"]

#: So often a person may reject the plan, and so often the report, until the run ends without it.
MAX_REJECTIONS: Final = 3

_OPTIONS: Final[Mapping[Subject, str]] = {"plan": "approve_plan", "publish": "approve_publish"}
_NAMES: Final[Mapping[Subject, str]] = {"plan": "plan", "publish": "report"}
_AGAIN: Final[Mapping[Subject, str]] = {
    "plan": "Make another plan with write_todos that heeds this; nothing else is done before one is approved.",
    "publish": f"Rewrite the report so that it heeds this, and write the whole of it to {REPORT_PATH} again.",
}
_PLAN_FIRST: Final = "Not done: a person has to approve the plan first. Write it with write_todos, and nothing besides."
_NO_DELETION: Final = "Not done: the report is published, or not, by a person's decision; write it anew instead."
_WRITES: Final = frozenset({"write_file", "edit_file"})


class Approvals(AgentMiddleware[Any, Any, Any]):
    """For the leader. `always` is asked in every job; a job's `configurable` can add to it, never take away."""

    def __init__(self, always: frozenset[Subject] = frozenset()) -> None:
        super().__init__()
        self._always = always

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | AIMessage:
        """End the run after too many rejections; make a report of an answer that would be published unseen.

        Raises InvalidJob for an option that is neither true nor false.
        """
        wanted = self._wanted()
        if not wanted:
            return await handler(request)
        run = _this_run(request.state["messages"])
        for subject in sorted(wanted):
            if len(reasons := _rejections(run, subject)) >= MAX_REJECTIONS:
                return AIMessage(_stopped(subject, reasons), id=f"{run[-1].id}-stopped")
        response = await handler(request)
        if "publish" in wanted and not _approved(run, "publish"):
            response.result = [_as_report(message) for message in response.result]
        return response

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Run the call, or ask before it, or refuse it."""
        wanted, call = self._wanted(), request.tool_call
        plan_is_open = "plan" in wanted and not _approved(_this_run(request.state["messages"]), "plan")
        if call["name"] == "write_todos" and plan_is_open:
            return await _decided("plan", request, handler)
        if plan_is_open:
            return _refusal(call, _PLAN_FIRST)
        if "publish" in wanted and call["name"] in _WRITES and _path(call) == REPORT_PATH:
            return await _decided("publish", request, handler)
        if "publish" in wanted and call["name"] == "delete" and _path(call) in {REPORT_PATH, "/"}:
            return _refusal(call, _NO_DELETION)
        return await handler(request)

    def _wanted(self) -> frozenset[Subject]:
        given = get_config().get("configurable", {})
        for option in _OPTIONS.values():
            if not isinstance(given.get(option, False), bool):
                raise InvalidJob(f"configurable.{option} is true or false, not {given[option]!r}")
        return self._always | {subject for subject, option in _OPTIONS.items() if given.get(option)}


async def _decided(
    subject: Subject,
    request: ToolCallRequest,
    handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
) -> ToolMessage | Command[Any]:
    call = request.tool_call
    decision = ask(call, f"Approve the {_NAMES[subject]} of this research?")
    kept = {"approval": subject, "decision": decision.kind}
    match decision.kind:
        case "reject":
            said = f"A person rejected the {_NAMES[subject]}: {decision.reason or 'no reason was given.'}"
            return _refusal(call, f"{said}\n{_AGAIN[subject]}", kept | {"reason": decision.reason})
        case "edit":
            edited: ToolCall = {**call, "args": dict(decision.args)}
            result = await handler(request.override(tool_call=edited))
            notice = f"A person changed the {_NAMES[subject]} before it was approved; what follows is theirs.\n"
            return _marked(result, kept | {"args": decision.args}, notice)
        case _:
            return _marked(await handler(request), kept)


def _marked(
    result: ToolMessage | Command[Any], artifact: dict[str, Any], notice: str = ""
) -> ToolMessage | Command[Any]:
    """The tool's answer that says what was decided: to the model in words, to `_approved` as an artifact."""
    if isinstance(result, ToolMessage):
        return result.model_copy(update={"content": f"{notice}{result.text}", "artifact": artifact})
    messages = [_marked(message, artifact, notice) for message in result.update["messages"]]  # type: ignore[index]  # these tools give a dict
    return Command(update={**result.update, "messages": messages})  # type: ignore[dict-item]  # the same


def _refusal(call: ToolCall, text: str, artifact: dict[str, Any] | None = None) -> ToolMessage:
    return ToolMessage(text, name=call["name"], tool_call_id=call["id"] or "", status="error", artifact=artifact)


def _this_run(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """From the last question on: what was approved for an earlier one counts no more."""
    return messages[max((place for place, one in enumerate(messages) if isinstance(one, HumanMessage)), default=0) :]


def _decisions(run: Sequence[BaseMessage], subject: Subject) -> list[tuple[ToolMessage, dict[str, Any]]]:
    tools = (one for one in run if isinstance(one, ToolMessage) and isinstance(one.artifact, dict))
    return [(one, one.artifact) for one in tools if one.artifact.get("approval") == subject]


def _approved(run: Sequence[BaseMessage], subject: Subject) -> bool:
    return any(message.status != "error" and kept["decision"] != "reject" for message, kept in _decisions(run, subject))


def _rejections(run: Sequence[BaseMessage], subject: Subject) -> list[str]:
    return [kept["reason"] for _message, kept in _decisions(run, subject) if kept["decision"] == "reject"]


def _stopped(subject: Subject, reasons: Sequence[str]) -> str:
    said = "; ".join(reason for reason in reasons if reason) or "none was given"
    what = f"its {_NAMES[subject]} was rejected {len(reasons)} times"
    return f"This research ended without a report: {what}. Reasons: {said}"


def _as_report(message: BaseMessage) -> BaseMessage:
    """An answer without a report would be the result itself: it becomes one, and is asked about like any other."""
    if not isinstance(message, AIMessage) or message.tool_calls or not message.text.strip():
        return message
    write = ToolCall(
        name="write_file",
        args={"file_path": REPORT_PATH, "content": message.text},
        id=f"publish-{message.id}",
        type="tool_call",
    )
    return message.model_copy(update={"content": "", "tool_calls": [write]})


def _path(call: ToolCall) -> str:
    """As deepagents reads it; a path that it refuses is its own to refuse."""
    try:
        return validate_path(str(call["args"].get("file_path", "")))
    except ValueError:
        return ""
