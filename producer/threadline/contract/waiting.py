"""What a person is asked, and an answer as it travels: JSON whose rules are checked before anything is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from threadline.contract.codec import MAX_INPUT_BYTES, canonical, dumps
from threadline.errors import InvalidJob

__all__ = ["Waiting", "check_answer", "decide_all"]

#: What a request of deepagents' `interrupt_on` (langchain's HumanInTheLoopMiddleware) holds.
_REQUESTS: Final = "action_requests"
#: The type of one that asks for each tool call by itself (`interrupt_mode="per_call"`).
_PER_CALL: Final = "tool_approval"


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A thread that waits for a person: `interrupts` are `{"id", "value"}`, none at a breakpoint.

    `since` is when the job asked, `expires_at` when it stops waiting (None: never); UTC with zone.
    """

    job_id: str
    thread_id: str
    user_id: str
    agent: str
    interrupts: list[dict[str, Any]]
    since: datetime
    expires_at: datetime | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


def check_answer(value: Any) -> Any:
    """Return the answer; InvalidJob unless it is JSON of at most 1 MiB."""
    try:
        size = len(canonical(value))
        dumps(value)  # what is stored: refuses keys that the standard library would make strings of
    except (InvalidJob, TypeError) as error:
        raise InvalidJob(f"the answer: {error}") from error
    if size > MAX_INPUT_BYTES:
        raise InvalidJob(f"the answer is {size:,} bytes as JSON; at most {MAX_INPUT_BYTES:,} (1 MiB) are allowed")
    return value


def decide_all(
    interrupts: list[dict[str, Any]], decision: Literal["approve", "reject"], message: str | None = None
) -> dict[str, Any]:
    """One answer for all that is asked, by interrupt id.

    Requests to run tools (`interrupt_on`) get one decision for each tool call; any other question gets true or false.
    `message` goes with a rejection of tool calls, and is told to the agent.
    """
    return {str(asked["id"]): _decide(asked.get("value"), decision, message) for asked in interrupts}


def _decide(asked: Any, decision: str, message: str | None) -> Any:
    one = {"type": decision, **({"message": message} if message else {})}
    if isinstance(asked, dict) and isinstance(requests := asked.get(_REQUESTS), list):
        return {"decisions": [one for _request in requests]}
    if isinstance(asked, dict) and asked.get("type") == _PER_CALL:
        return one
    return decision == "approve"
