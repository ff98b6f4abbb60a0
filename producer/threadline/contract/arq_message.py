"""arq 0.28's message layout, owned here alone so that producers need no arq; a contract test runs it against arq.

What arq reads: a sorted set (the queue) of message ids scored by the due time in ms, and for each id a key
`arq:job:<id>` with the serialised call `{"t": try, "f": function, "a": args, "k": kwargs, "et": enqueued at, ms}`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from threadline.contract.codec import dumps, loads

__all__ = ["FUNCTION", "JOB_KEY_PREFIX", "RETRY_KEY_PREFIX", "Message", "decode", "message_id", "sent_ms"]

FUNCTION: Final = "run_job"
JOB_KEY_PREFIX: Final = "arq:job:"
RETRY_KEY_PREFIX: Final = "arq:retry:"
IN_PROGRESS_KEY_PREFIX: Final = "arq:in-progress:"
RESULT_KEY_PREFIX: Final = "arq:result:"

#: A dispatch is a wake-up: the sweep repeats a lost one, so its body needs to live no longer than a day.
DISPATCH_TTL_MS: Final = 86_400_000
#: A message that carries a whole job is the only copy until it is adopted: thirty days.
CARRIED_TTL_MS: Final = 30 * 86_400_000


class Message(msgspec.Struct, frozen=True):
    """One arq message: `args` is `[job_id]`, or `[job_id, job]` from a service without Postgres."""

    message_id: str
    args: list[Any]
    enqueued_ms: int
    ttl_ms: int = DISPATCH_TTL_MS

    @property
    def key(self) -> str:
        """The key of the body."""
        return JOB_KEY_PREFIX + self.message_id

    @property
    def body(self) -> bytes:
        """What arq's deserialiser reads."""
        return dumps({"t": None, "f": FUNCTION, "a": self.args, "k": {}, "et": self.enqueued_ms})


def message_id(job_id: str, epoch: int, n: int) -> str:
    """A dispatch's own id: a repeated one never meets arq's memory of an earlier one."""
    return f"{job_id}:{epoch}:{n}"


def decode(body: bytes) -> list[Any]:
    """The arguments of a message body; ValueError if it is none of ours."""
    call = loads(body)
    if not isinstance(call, dict) or call.get("f") != FUNCTION or not isinstance(call.get("a"), list):
        raise ValueError(f"not a {FUNCTION} message")
    return list(call["a"])


def sent_ms(body: bytes) -> float:
    """When a message was put into the queue, by its sender's clock; 0 if it does not say."""
    try:
        call = loads(body)
    except ValueError:
        return 0.0
    sent = call.get("et") if isinstance(call, dict) else None
    return float(sent) if isinstance(sent, (int, float)) else 0.0
