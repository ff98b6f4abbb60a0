"""Reads arq's message bodies: what is no call of ours comes out as one that sets the message aside, never as an error.

arq drops a body that it cannot read without a word, and ends its loop on wrong types (findings.md).
"""

from __future__ import annotations

import re
import time
from typing import Any, Final, NamedTuple

from threadline.contract.arq_message import CARRIED_TTL_MS, FUNCTION, Message
from threadline.contract.codec import loads

__all__ = ["GONE", "MISTYPED", "NOT_UTF8", "TOO_OLD", "Unreadable", "is_wake_up", "job_of", "read_call"]

# The reasons, all of them: they are a metric's label.
GONE: Final = "its body is gone"
MISTYPED: Final = "its keys have the wrong type"
NOT_UTF8: Final = "its id is not UTF-8"
_NOT_JSON: Final = "its body is not JSON"
_NO_CALL: Final = f"it is no call of {FUNCTION} with a job id"
_WRONG_TYPES: Final = "its fields have wrong types"
TOO_OLD: Final = "it was enqueued longer ago than messages are kept (30 days)"

_WAKE_UP = re.compile(r"(?P<job>.+):\d+:\d+", re.DOTALL)
#: Year 9999 in ms; arq makes a datetime of it.
_LAST_MS: Final = 253_402_300_799_999
#: Of a job (threadline.contract.job.check_id).
_LONGEST_ID: Final = 200


class Unreadable(NamedTuple):
    """Stands for the arguments of a body that is no call of ours."""

    why: str
    body: bytes


def read_call(body: bytes) -> dict[str, Any]:
    """A body as arq wants it deserialised. Never raises."""
    try:
        call = loads(body)
    except ValueError:  # pickle, too
        return _call([Unreadable(_NOT_JSON, body)])
    if why := _complaint(call) or _outdated(call):
        return _call([Unreadable(why, body)])
    return _call(call["a"], call["et"])


def job_of(body: bytes) -> tuple[str, Any] | Unreadable:
    """The job id of a body, and the whole job if it carries one."""
    arguments = read_call(body)["a"]
    if isinstance(arguments[0], Unreadable):
        return arguments[0]
    return arguments[0], arguments[1] if len(arguments) > 1 else None


def is_wake_up(message_id: str, body_bytes: int | None = None) -> bool:
    """Whether the id is a dispatch's, `<job>:<epoch>:<n>` (and the body no longer than a dispatch's)."""
    match = _WAKE_UP.fullmatch(message_id)
    if match is None or body_bytes is None:
        return match is not None
    return body_bytes <= len(Message(message_id, [match["job"]], _LAST_MS).body)


def _complaint(call: Any) -> str | None:
    if not isinstance(call, dict) or call.get("f") != FUNCTION or call.get("k") not in ({}, None):
        return _NO_CALL
    arguments, enqueued, tried = call.get("a"), call.get("et"), call.get("t")
    if not isinstance(arguments, list) or not isinstance(enqueued, int) or not isinstance(tried, int | None):
        return _WRONG_TYPES
    if not arguments or not isinstance(arguments[0], str) or not 0 <= enqueued <= _LAST_MS:
        return _NO_CALL
    if len(arguments[0]) > _LONGEST_ID:  # the ledger need not be asked for 50 MB
        return _NO_CALL
    return None


def _outdated(call: dict[str, Any]) -> str | None:
    """L5: tries have no limit, so a carried job's age has one: the time for which its producer's message lives."""
    carries = len(call["a"]) > 1 and call["a"][1] is not None
    return TOO_OLD if carries and call["et"] < time.time() * 1000 - CARRIED_TTL_MS else None


def _call(arguments: list[Any], enqueued: int = 0) -> dict[str, Any]:
    # Without arq's own count of tries: it plays no part.
    return {"t": None, "f": FUNCTION, "a": arguments, "k": {}, "et": enqueued}
