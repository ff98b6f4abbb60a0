"""How a chaos run tells a worker process what shall go wrong in it: files in a folder, one worker's name in front.

`<worker>.<order>` with the order's argument as its text. The harness writes, `support.chaos_failpoints` and
`support.chaos_graph` in the worker obey; an order is taken once (the file is moved away), a setting stays.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["FOLDER", "WORKER", "Orders", "setting", "take"]

FOLDER = "CHAOS_FOLDER"
WORKER = "CHAOS_WORKER"
_ORDERS = "orders"


class Orders:
    """The harness' side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _ORDERS
        self._folder.mkdir(parents=True, exist_ok=True)

    def give(self, worker: str, order: str, argument: str = "") -> None:
        """Written elsewhere and moved, so that nobody reads half of it."""
        draft = self._folder / f"{worker}.{order}.draft"
        draft.write_text(argument)
        draft.rename(self._folder / f"{worker}.{order}")

    def waits(self, worker: str, order: str) -> bool:
        """Whether nobody has taken it."""
        return (self._folder / f"{worker}.{order}").exists()

    def withdraw(self, worker: str, order: str) -> bool:
        """False: it was taken already."""
        try:
            (self._folder / f"{worker}.{order}").unlink()
        except FileNotFoundError:
            return False
        return True

    def withdraw_all(self) -> None:
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)


def take(order: str) -> str | None:
    """The worker's side: the order's argument, once; None: there is none."""
    if FOLDER not in os.environ:  # not in a worker of a chaos run
        return None
    file = _file(order)
    if not file.exists():
        return None
    with contextlib.suppress(FileNotFoundError):
        taken = file.with_name(f"taken.{os.getpid()}.{file.name}")
        file.rename(taken)  # of several at once, one succeeds
        text = taken.read_text()
        taken.unlink()
        return text
    return None


def setting(name: str) -> str:
    """The worker's side: what the harness has set, "" if nothing."""
    try:
        return _file(name).read_text()
    except FileNotFoundError:
        return ""


def _file(name: str) -> Path:
    return Path(os.environ[FOLDER]) / _ORDERS / f"{os.environ[WORKER]}.{name}"
