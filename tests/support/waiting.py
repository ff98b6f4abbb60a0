"""Waiting in blocking tests for what another thread or process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["soon"]


def soon(seen: Callable[[], bool], limit: float = 20) -> None:
    """Ask until it is so; AssertionError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not seen():
        assert time.monotonic() < deadline, f"not within {limit:g} s"
        time.sleep(0.01)
