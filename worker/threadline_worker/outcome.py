"""How a run ended: a value that is matched into one ledger call, never a flag or an exception across files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from threadline.contract.states import Code
from threadline.errors import CannotDecrypt
from threadline_worker.exhaustion import is_shortage
from threadline_worker.telemetry.secrets import without_ours

__all__ = [
    "AWAY_SECONDS",
    "FAILURE_LIMIT",
    "Cancelled",
    "Failed",
    "Interrupted",
    "Lost",
    "Outcome",
    "Released",
    "Retriable",
    "Succeeded",
    "backoff",
    "classify",
    "unreadable",
]

FAILURE_LIMIT = 3
#: How long a job waits that was given back because Postgres was away.
AWAY_SECONDS = 1.0
_BACKOFF_FIRST = 2.0
_BACKOFF_MOST = 300.0
_RETRIABLE_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True)
class Succeeded:
    """The graph has nothing left to do; `result` is JSON."""

    result: Any


@dataclass(frozen=True)
class Interrupted:
    """The graph waits for a person; each prompt is `{"id", "value"}`."""

    prompts: list[dict[str, Any]]


@dataclass(frozen=True)
class Failed:
    """It will not go better next time."""

    code: str
    message: str


@dataclass(frozen=True)
class Retriable:
    """It may go better next time: charged, delayed, and continued from the last checkpoint."""

    code: str
    message: str
    retry_after: float | None = None


@dataclass(frozen=True)
class Cancelled:
    """Somebody asked for the end."""

    code: str = Code.REQUESTED
    rollback: bool = False


@dataclass(frozen=True)
class Released:
    """Given back without a charge: another worker goes on, after `delay` seconds."""

    code: str = Code.DRAIN
    delay: float = 0.0


@dataclass(frozen=True)
class Lost:
    """The ledger gave the job to somebody else: nothing may be written."""


Outcome = Succeeded | Interrupted | Failed | Retriable | Cancelled | Released | Lost


def backoff(failures: int, retry_after: float | None = None) -> float:
    """Seconds until the next try: 2 s doubling with each failure to 5 min, with jitter, at least Retry-After (L7)."""
    delay = min(_BACKOFF_FIRST * 2.0**failures, _BACKOFF_MOST)
    # Jitter spreads retries; it is no secret.
    jittered = delay * random.uniform(0.75, 1.25)  # noqa: S311
    return max(jittered, min(retry_after or 0.0, 3600.0))


def unreadable(error: CannotDecrypt) -> Failed | Retriable:
    """Stored data that cannot be read. Another worker may have the key; what was changed or is plaintext stays so."""
    kind = Retriable if error.reason == "unknown_key" else Failed
    return kind(Code.UNREADABLE, str(error))


def classify(error: BaseException) -> Failed | Retriable:
    """What an exception of a graph means. The node's name comes from the note that LangGraph adds."""
    if isinstance(error, CannotDecrypt):
        return unreadable(error)
    message = describe(error)
    status = _status(error)
    if status is not None:
        known = status in _RETRIABLE_STATUS
        return Retriable(Code.TRANSIENT, message, _retry_after(error)) if known else Failed(Code.ERROR, message)
    # Perhaps another job had all the memory; the third time it is this one's own doing.
    if isinstance(error, (TimeoutError, ConnectionError)) or _is_transport(error) or is_shortage(error):
        return Retriable(Code.TRANSIENT, message)
    if type(error).__name__ == "GraphRecursionError":
        return Failed(Code.RECURSION_LIMIT, message)
    if type(error).__name__ in {"InvalidUpdateError", "EmptyInputError"}:
        return Failed(Code.INVALID_INPUT, message)
    return Failed(Code.ERROR, message)


def describe(error: BaseException) -> str:
    """An exception as one line without our secrets, with the node it came from; at most 2,000 characters."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("During task with name ")]
    where = " (node " + notes[0].split("'")[1] + ")" if notes and "'" in notes[0] else ""
    text = without_ours(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:1900] + where


def _status(error: BaseException) -> int | None:
    """The HTTP status that a provider's client puts on its exceptions."""
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:  # absent, or an HTTP date, which providers do not send
        return None


def _is_transport(error: BaseException) -> bool:
    """Connections and timeouts of clients whose exceptions do not derive from the built-in ones."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "APIConnectionError", "OperationalError", "PoolTimeout", "InterfaceError"})
