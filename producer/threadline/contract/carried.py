"""Whose job a message carries, also where the message is cut off or was never one."""

from __future__ import annotations

import json
from typing import Any

from threadline.contract.codec import loads

__all__ = ["carries_job_of"]


def carries_job_of(body: bytes, user_id: str) -> bool:
    """Whether a message's (or dead letter's) body has a job of this user in it; one without a user is `default`'s."""
    try:
        value = loads(body)
    except ValueError:  # cut off, or not JSON: the words are looked for as a JSON encoder would write them
        return any(_said(user_id, ascii_only) in body for ascii_only in (False, True))
    return _has(value, user_id)


def _has(value: Any, user_id: str) -> bool:
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            if "thread_id" in found and "agent" in found:  # a job; what is in its input is the input
                if found.get("user_id", "default") == user_id:
                    return True
                continue
            waiting += found.values()
    return False


def _said(user_id: str, ascii_only: bool) -> bytes:
    return f'"user_id":{json.dumps(user_id, ensure_ascii=ascii_only)}'.encode("utf-8", "surrogatepass")
