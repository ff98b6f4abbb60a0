"""A worker that has run out of memory ends itself, so that no job fails for what another one ate.

Whoever asks for memory last is told that there is none, not who has it. Under a cgroup the OOM killer settles that
with the whole process; under a limit on its address space (`ulimit -v`) Python raises MemoryError in some job, or in
the heartbeat. Ending the process is the same as what the OOM killer does: the jobs are rescued, and the one that does
it again and again is found out (L7).
"""

from __future__ import annotations

import os

import structlog

__all__ = ["EXHAUSTED_EXIT", "end_if_exhausted", "is_shortage"]

log = structlog.get_logger(__name__)

#: As for a loop that stood still (EX_SOFTWARE); a supervisor starts the worker again.
EXHAUSTED_EXIT = 70
#: A process that cannot have so much any more cannot be trusted to go on.
_LEAST_BYTES = 32 * 1024 * 1024


def end_if_exhausted(error: BaseException) -> None:
    """End the process if the error means that memory is short; a single request that was absurdly large does not."""
    if is_shortage(error) and not _memory_left():
        try:
            log.error("worker.exhausted", error=f"{type(error).__name__}: {error}")
        finally:
            os._exit(EXHAUSTED_EXIT)


def is_shortage(error: BaseException) -> bool:
    """Whether the error, or one of its group, says that there was not enough memory for what was asked."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_shortage(one) for one in error.exceptions)
    # A thread's stack is memory, too; Python says it in these words only.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def _memory_left() -> bool:
    try:
        return bool(bytearray(_LEAST_BYTES))
    except MemoryError:
        return False
