"""A job as it travels: checked once, at the earliest place, with a message that names the rule."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from threadline.contract.codec import MAX_INPUT_BYTES, canonical
from threadline.contract.states import OnBusy, State
from threadline.errors import InvalidJob

__all__ = [
    "STREAM_MODES",
    "JobRequest",
    "JobStatus",
    "check_id",
    "check_thread_id",
    "check_user_id",
    "decode_request",
    "new_id",
    "seconds",
]

#: LangGraph's stream modes.
STREAM_MODES: Final = ("values", "updates", "messages", "tasks", "checkpoints", "custom", "debug", "tools")
_THREAD_ID = re.compile(r"[A-Za-z0-9._:@-]{1,200}")
_AGENT = re.compile(r"[A-Za-z0-9._-]{1,100}")
_MAX_USER_ID: Final = 500
_MAX_KEY: Final = 500
_MAX_METADATA_BYTES: Final = 65_536
_MAX_SECONDS: Final = 366 * 86_400.0


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `enqueue` asks for. Unknown fields of newer producers are tolerated when it is decoded.

    `run_at` is a moment with zone or None (now); `expires` (enqueue to first claim) and `timeout` (running time,
    summed over pick-ups) are seconds or None (no limit; the worker's default).
    """

    job_id: str
    agent: str
    input: Any
    thread_id: str
    user_id: str = "default"
    on_busy: OnBusy = OnBusy.ENQUEUE
    idempotency_key: str | None = None
    run_at: datetime | None = None
    expires: float | None = None
    timeout: float | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    stream_modes: list[str] = msgspec.field(default_factory=lambda: ["updates"])
    interrupt_before: list[str] = msgspec.field(default_factory=list)
    interrupt_after: list[str] = msgspec.field(default_factory=list)
    checkpoint_id: str | None = None
    v: int = 1

    def check(self) -> JobRequest:
        """Return self, or raise InvalidJob that names the rule that is broken."""
        check_id("job id", self.job_id)
        if not _AGENT.fullmatch(self.agent):
            raise InvalidJob(f"agent {self.agent[:120]!r}: use 1-100 of letters, digits and . _ -")
        check_thread_id(self.thread_id)
        check_user_id(self.user_id)
        _check_input(self.input)
        _check_options(self)
        return self

    def options(self) -> dict[str, Any]:
        """The options that only the worker reads; one JSON column of the ledger."""
        return {
            "stream_modes": self.stream_modes,
            "interrupt_before": self.interrupt_before,
            "interrupt_after": self.interrupt_after,
            "checkpoint_id": self.checkpoint_id,
        }

    def fingerprint(self, *, made_up_thread: bool = False) -> str:
        """Same request, same value: what an idempotency key is compared on.

        The job id is left out, and so is the id of a thread that was made for this request.
        """
        same = msgspec.to_builtins(self)
        for made_up in ("job_id", "v", *(("thread_id",) if made_up_thread else ())):
            same.pop(made_up)
        return hashlib.sha256(canonical(same)).hexdigest()


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says of a job. Moments are UTC with zone; `error` is `{"code", "message"}` or None."""

    job_id: str
    thread_id: str
    user_id: str
    agent: str
    state: State
    epoch: int
    worker_id: str | None = None
    failures: int = 0
    stalls: int = 0
    error: dict[str, Any] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the job is over (`interrupted` is: a resume is a new job)."""
        return self.state in {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED}


def decode_request(value: Mapping[str, Any]) -> JobRequest:
    """A job that came in a message (already parsed JSON), checked. Raises InvalidJob."""
    try:
        request = msgspec.convert(dict(value), JobRequest)
    except msgspec.ValidationError as error:
        raise InvalidJob(f"the message's job is not well-formed: {error}") from error
    return request.check()


def new_id() -> str:
    """A fresh job or thread id: 32 hex digits, of 122 random bits."""
    return uuid.uuid4().hex


def check_id(what: str, value: str) -> str:
    """Return the id; InvalidJob unless it is 1-200 of letters, digits, `. _ : @ -`."""
    if not isinstance(value, str) or not _THREAD_ID.fullmatch(value):
        shown = value[:120] if isinstance(value, str) else value
        raise InvalidJob(f"{what} {shown!r}: use 1-200 of letters, digits and . _ : @ -")
    return value


def check_thread_id(value: str) -> str:
    """Return the thread id; InvalidJob unless it is 1-200 of letters, digits, `. _ : @ -`."""
    return check_id("thread id", value)


def check_user_id(value: str) -> str:
    """Return the user id; InvalidJob unless it is a string of 1-500 characters without NUL."""
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_USER_ID or "\0" in value or not _encodes(value):
        raise InvalidJob("user id: use a string of 1-500 characters without NUL")
    return value


def seconds(name: str, value: float | timedelta | None) -> float | None:
    """A duration option as seconds; InvalidJob unless it is above 0 and at most a year."""
    if value is None:
        return None
    amount = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 < amount <= _MAX_SECONDS:
        raise InvalidJob(f"{name}={value!r}: give seconds (or a timedelta) above 0 and at most a year")
    return float(amount)


def _check_input(value: Any) -> None:
    if not isinstance(value, (str, dict)):
        raise InvalidJob(
            f"input is a {type(value).__name__}: give a str (one human message) or the graph's input as a dict"
        )
    if isinstance(value, str) and not value.strip():
        raise InvalidJob("input is empty: say what the agent should do")
    size = len(canonical(value))
    if size > MAX_INPUT_BYTES:
        raise InvalidJob(
            f"input is {size:,} bytes as JSON; at most {MAX_INPUT_BYTES:,} (1 MiB) are allowed: pass a reference"
        )


def _check_options(request: JobRequest) -> None:
    if not request.stream_modes or (unknown := [m for m in request.stream_modes if m not in STREAM_MODES]):
        given = ", ".join(map(repr, unknown)) if request.stream_modes else "none"
        raise InvalidJob(f"stream mode {given}: use any of {', '.join(STREAM_MODES)}")
    if request.run_at is not None and request.run_at.tzinfo is None:
        raise InvalidJob(f"run_at={request.run_at.isoformat()} has no time zone: use datetime.now(UTC) + …")
    seconds("expires", request.expires)
    seconds("timeout", request.timeout)
    if (key := request.idempotency_key) is not None and (
        not 1 <= len(key) <= _MAX_KEY or "\0" in key or not _encodes(key)
    ):
        raise InvalidJob("idempotency key: use 1-500 characters without NUL")
    if request.checkpoint_id is not None:
        check_id("checkpoint id", request.checkpoint_id)
    if len(canonical(request.metadata)) > _MAX_METADATA_BYTES:
        raise InvalidJob("metadata is over 64 KiB as JSON: keep references, not documents")
    for names in (request.interrupt_before, request.interrupt_after):
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise InvalidJob("interrupt_before and interrupt_after are lists of node names")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate cannot be stored anywhere
        return False
    return True
