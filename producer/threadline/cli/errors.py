"""Every error that a user can mend becomes one line on stderr and the exit code that contract.md names."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from threadline.contract.states import State
from threadline.errors import (
    BackendUnavailable,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    ResultTimeout,
    ThreadlineError,
)

__all__ = ["ExitCode", "exit_code", "exit_code_of_state"]


class ExitCode(IntEnum):
    """What a command's end means to a script."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    INTERRUPTED = 5
    TIMEOUT = 124
    CTRL_C = 130
    #: What a shell reports for any program whose reader has gone; click's 1 would say that the job failed.
    BROKEN_PIPE = 141


_CODES: Final[tuple[tuple[type[ThreadlineError], ExitCode], ...]] = (
    (JobFailed, ExitCode.JOB_FAILED),
    (JobCancelled, ExitCode.JOB_FAILED),
    (JobInterrupted, ExitCode.INTERRUPTED),
    (JobNotFound, ExitCode.NOT_FOUND),
    (BackendUnavailable, ExitCode.UNAVAILABLE),  # NotMigrated is one
    (ResultTimeout, ExitCode.TIMEOUT),
)
_STATES: Final = {
    State.FAILED: ExitCode.JOB_FAILED,
    State.CANCELLED: ExitCode.JOB_FAILED,
    State.INTERRUPTED: ExitCode.INTERRUPTED,
}


def exit_code(error: ThreadlineError) -> ExitCode:
    """The code of an error; all that is not named above is a request that breaks a rule: 2."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.USAGE)


def exit_code_of_state(state: str) -> ExitCode:
    """The code of a job that was followed to its end."""
    return _STATES.get(State(state), ExitCode.OK)
