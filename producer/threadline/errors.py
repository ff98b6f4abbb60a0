"""Every error that Threadline raises on purpose; each message says what to do.

ThreadlineError
├── InvalidJob            the request breaks a rule; nothing was stored
├── UnknownAgent          no live worker runs this agent
├── ThreadBusy            on_busy="reject" and the thread has an open job
├── ThreadOwnedByAnother  the thread (or job) belongs to another user
├── ThreadMovedOn         retry after a later job of the thread has started
├── NotWaiting            resume of a thread that waits for nobody
├── JobNotFound           no job with this id is known
├── JobFailed             result(): the job ended `failed` (.code, .message)
├── JobCancelled          result(): the job ended `cancelled` (.code)
├── JobInterrupted        result(): the job waits for a person (.interrupts)
├── ResultTimeout         result(timeout=…) ran out; the job goes on
├── NeedsDatabase         the call needs DATABASE_URL
├── BackendUnavailable    Redis or Postgres does not answer
├── NotMigrated           the database has no (or an older) Threadline schema
├── CannotDecrypt         stored data is sealed with a key that is missing, was changed, or is plaintext and must not
└── ConfigurationError    an environment variable or option has no meaning
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BackendUnavailable",
    "CannotDecrypt",
    "ConfigurationError",
    "InvalidJob",
    "JobCancelled",
    "JobFailed",
    "JobInterrupted",
    "JobNotFound",
    "NeedsDatabase",
    "NotMigrated",
    "NotWaiting",
    "ResultTimeout",
    "ThreadBusy",
    "ThreadMovedOn",
    "ThreadOwnedByAnother",
    "ThreadlineError",
    "UnknownAgent",
]

# The names are the public contract (contract.md), without the Error suffix that N818 asks for.
# ruff: noqa: N818


class ThreadlineError(Exception):
    """The root of the tree above."""


class InvalidJob(ThreadlineError, ValueError):
    """The request breaks a rule that the message names; nothing was stored."""


class UnknownAgent(ThreadlineError):
    """No live worker runs an agent of this name; the message lists those that are known."""


class ThreadBusy(ThreadlineError):
    """The thread has an open job and `on_busy="reject"` was asked for; nothing was stored.

    `job_id` is the job that holds the thread.
    """

    def __init__(self, message: str, *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class ThreadOwnedByAnother(ThreadlineError):
    """The thread, or the job's thread, belongs to another user."""


class ThreadMovedOn(ThreadlineError):
    """A later job of the thread has started, so this one cannot be continued any more."""


class NotWaiting(ThreadlineError):
    """The thread waits for nobody, so there is nothing to resume."""


class JobNotFound(ThreadlineError, LookupError):
    """No job with this id is known."""


class JobFailed(ThreadlineError):
    """The job ended `failed`; `code` is a word of contract.states.Code or an agent's own, `message` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class JobCancelled(ThreadlineError):
    """The job ended `cancelled`; `code` is `requested`, `replaced` or `expired`."""

    def __init__(self, code: str = "requested") -> None:
        super().__init__(f"the job was cancelled ({code})")
        self.code = code


class JobInterrupted(ThreadlineError):
    """The job waits for a person; `interrupts` is a list of `{"id", "value"}`."""

    def __init__(self, interrupts: list[dict[str, Any]]) -> None:
        super().__init__(f"the job waits for a person ({len(interrupts)} open question(s)); answer with resume()")
        self.interrupts = interrupts


class ResultTimeout(ThreadlineError, TimeoutError):
    """The job has not ended in the time given; it goes on."""


class NeedsDatabase(ThreadlineError):
    """This call reads or writes the ledger: give the client a database_url (or set DATABASE_URL)."""


class BackendUnavailable(ThreadlineError, ConnectionError):
    """Redis or Postgres cannot be reached or refuses; the message says which and why, without passwords.

    `passing` is False where waiting does not help: a wrong password, a missing right, a certificate that nobody trusts.
    """

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class NotMigrated(BackendUnavailable):
    """The database lacks Threadline's schema, or has an older one: run `threadline migrate`."""


class CannotDecrypt(ThreadlineError):
    """What is stored cannot be read with this process's THREADLINE_ENCRYPTION_KEYS; the message says which and why.

    `reason` is unknown_key, changed (or moved from its place) or plaintext (where only sealed data is read).
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ConfigurationError(ThreadlineError, ValueError):
    """An environment variable or option has a value without a meaning; the message names it."""
