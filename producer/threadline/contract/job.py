"""A job as it travels: checked once, at the earliest place, with a message that names the rule."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from threadline.contract.codec import MAX_INPUT_BYTES, canonical, dumps, loads
from threadline.contract.queues import DEFAULT_QUEUE, check_queue
from threadline.contract.states import OnBusy, State
from threadline.contract.traceparent import well_formed
from threadline.contract.webhook import check_webhook_url
from threadline.errors import InvalidJob

__all__ = [
    "STREAM_MODES",
    "JobRequest",
    "JobStatus",
    "check_id",
    "check_key",
    "check_metadata",
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
_MOST_YEARS: Final = 10
_EARLIEST_YEAR: Final = 1900
_MAX_SECONDS: Final = 366 * 86_400.0
_VERSION: Final = 1
#: What a fingerprint holds whatever its value.
_ALWAYS: Final = frozenset({"agent", "input", "thread_id", "user_id"})


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `enqueue` asks for. Unknown fields of newer producers are tolerated when it is decoded.

    `run_at` is a moment with zone or None (now); `expires` (enqueue to first claim) and `timeout` (running time,
    summed over pick-ups) are seconds or None (no limit; the worker's default), and so is `wait_expires` (until somebody
    answers; no limit). `webhook_url` is told of each end. `configurable` and `context` are the graph's, None for none.
    `traceparent` (W3C) says which trace asked for the job; one that is not well-formed counts as none. `queue` is where
    it waits, None for `routed`, which a producer's map chose and which is no part of the request.
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
    webhook_url: str | None = None
    wait_expires: float | None = None
    configurable: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    traceparent: str | None = None
    queue: str | None = None
    routed: str | None = None
    v: int = _VERSION

    @property
    def in_queue(self) -> str:
        """Where it waits: as the caller said, else as the map, else in the default queue."""
        return self.queue or self.routed or DEFAULT_QUEUE

    def check(self) -> JobRequest:
        """Return self, or raise InvalidJob that names the rule that is broken."""
        check_id("job id", self.job_id)
        if self.v != _VERSION:
            raise InvalidJob(f"the job is of version {self.v}, this code reads version {_VERSION}: update it")
        check_agent(self.agent)
        check_thread_id(self.thread_id)
        check_user_id(self.user_id)
        _check_input(self.input)
        _check_options(self)
        return self

    def options(self) -> dict[str, Any]:
        """The options that only the worker reads, and the ledger's trigger for webhooks; one JSON column."""
        options: dict[str, Any] = {
            "stream_modes": self.stream_modes,
            "interrupt_before": self.interrupt_before,
            "interrupt_after": self.interrupt_after,
            "checkpoint_id": self.checkpoint_id,
        }
        later = {
            "webhook_url": self.webhook_url,
            "wait_expires": self.wait_expires,
            # As text: SQL looks for names in these options, and shall find none of a producer's own.
            "configurable": None if self.configurable is None else dumps(self.configurable).decode(),
            "context": None if self.context is None else dumps(self.context).decode(),
            "traceparent": well_formed(self.traceparent),
            "queue": self.queue or self.routed,
        }
        return {**options, **{name: value for name, value in later.items() if value is not None}}

    def fingerprint(self, *, made_up_thread: bool = False) -> str:
        """Same request, same value: what an idempotency key is compared on.

        The job id is left out, the trace, the queue that a map chose, and the id of a thread that was made for this
        request. So are options that have their default, or an option that a later version adds would make equal
        requests differ.
        """
        made_up = {"job_id", "v", "traceparent", "routed", *(("thread_id",) if made_up_thread else ())}
        usual = type(self)(job_id="", agent="", input=None, thread_id="").as_json()
        same = {
            name: value
            for name, value in self.as_json().items()
            if name not in made_up and (name in _ALWAYS or value != usual[name])
        }
        return hashlib.sha256(canonical(same)).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The job as its reader sees it: plain JSON data, keys of all objects strings."""
        plain: dict[str, Any] = loads(dumps(self))
        return plain


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says of a job. Moments are UTC with zone; `error` is `{"code", "message"}` or None.

    `webhook` is None without a `webhook_url`, else where the report of the latest end stands: `state` (waiting for an
    end, pending, held, delivered, failed), `epoch`, `attempts`, `status` (HTTP), `answer`, `next_at`, `delivered_at`.
    `worker_version` is the release of the worker that claimed the job last, `agent_fingerprint` stands for the graph
    that it ran in last (None: not known).
    """

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
    webhook: dict[str, Any] | None = None
    queue: str = DEFAULT_QUEUE
    worker_version: str | None = None
    agent_fingerprint: str | None = None

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
        raise InvalidJob(f"{what} {_shown(value)}: use 1-200 of letters, digits and . _ : @ -")
    return value


def check_thread_id(value: str) -> str:
    """Return the thread id; InvalidJob unless it is 1-200 of letters, digits, `. _ : @ -`."""
    return check_id("thread id", value)


def check_agent(value: str) -> str:
    """Return the agent's name; InvalidJob unless it is 1-100 of letters, digits, `. _ -`."""
    if not isinstance(value, str) or not _AGENT.fullmatch(value):
        raise InvalidJob(f"agent {_shown(value)}: use 1-100 of letters, digits and . _ -")
    return value


def check_user_id(value: str) -> str:
    """Return the user id; InvalidJob unless it is a string of 1-500 characters without NUL."""
    _check_text("user id", value, _MAX_USER_ID)
    return value


def check_key(value: str) -> str:
    """Return the idempotency key; InvalidJob unless it is a string of 1-500 characters without NUL."""
    _check_text("idempotency key", value, _MAX_KEY)
    return value


def check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata; InvalidJob unless it is a dict of at most 64 KiB as JSON."""
    _check_object("metadata", value)
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
    size = _json_size("input", value)
    if size > MAX_INPUT_BYTES:
        raise InvalidJob(
            f"input is {size:,} bytes as JSON; at most {MAX_INPUT_BYTES:,} (1 MiB) are allowed: pass a reference"
        )


def _check_options(request: JobRequest) -> None:
    _check_names(request)
    _check_moment(request.run_at)
    seconds("expires", request.expires)
    seconds("timeout", request.timeout)
    seconds("wait_expires", request.wait_expires)
    if request.idempotency_key is not None:
        check_key(request.idempotency_key)
    if request.checkpoint_id is not None:
        check_id("checkpoint id", request.checkpoint_id)
    if request.webhook_url is not None:
        check_webhook_url(request.webhook_url)
    for queue in (request.queue, request.routed):
        if queue is not None:
            check_queue(queue)
    check_metadata(request.metadata)
    _check_object("configurable", request.configurable)
    _check_object("context", request.context)


def _check_object(what: str, value: Any) -> None:
    if value is None and what != "metadata":
        return
    if not isinstance(value, dict):
        raise InvalidJob(f"{what} is a {type(value).__name__}: give a dict")
    if _json_size(what, value) > _MAX_METADATA_BYTES:
        raise InvalidJob(f"{what} is over 64 KiB as JSON: keep references, not documents")


def _check_moment(moment: Any) -> None:
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise InvalidJob(f"run_at={moment!r}: give a datetime with time zone")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidJob(f"run_at={moment.isoformat()} has no time zone: use datetime.now(UTC) + …")
    if not _EARLIEST_YEAR <= moment.year <= datetime.now(UTC).year + _MOST_YEARS:
        raise InvalidJob(f"run_at={moment.isoformat()} is not within the next {_MOST_YEARS} years")


def _check_names(request: JobRequest) -> None:
    for option in ("stream_modes", "interrupt_before", "interrupt_after"):
        names = getattr(request, option)
        # A str is a sequence of str too: "node" would mean the nodes n, o, d, e.
        if not isinstance(names, list) or not all(isinstance(name, str) and _encodes(name) for name in names):
            raise InvalidJob(f"{option}={names!r}: give a list of str")
    if not request.stream_modes or (unknown := [m for m in request.stream_modes if m not in STREAM_MODES]):
        given = ", ".join(map(repr, unknown)) if request.stream_modes else "none"
        raise InvalidJob(f"stream mode {given}: use any of {', '.join(STREAM_MODES)}")


def _check_text(what: str, value: Any, most: int) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= most or "\0" in value or not _encodes(value):
        raise InvalidJob(f"{what}: use a string of 1-{most} characters without NUL")


def _json_size(what: str, value: Any) -> int:
    """Bytes of the value as JSON. Raises InvalidJob if it is none, also inside: a tuple is one, bytes are not."""
    try:
        size = len(canonical(value))
        dumps(value)  # what is sent: refuses keys that the standard library would make strings of
    except (InvalidJob, TypeError) as error:
        raise InvalidJob(f"{what}: {error}") from error
    return size


def _shown(value: Any) -> str:
    return repr(value[:120] if isinstance(value, str) else value)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate cannot be stored anywhere
        return False
    return True
