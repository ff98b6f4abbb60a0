"""A cancellation that a library swallowed is raised again at the next turn of the loop that it was meant to end."""

from __future__ import annotations

import asyncio

__all__ = ["pass_on_cancellation"]


def pass_on_cancellation() -> None:
    """Raise CancelledError if this task was cancelled and goes on all the same.

    redis-py sends within `asyncio.wait_for`, which before Python 3.12 returns its result instead of raising when both
    come at the same moment: every thirtieth drain hung for it.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
