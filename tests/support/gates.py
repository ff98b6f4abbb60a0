"""The test's hand on the steps of `support.graphs` and `support.orders`: gates, orders, and what the steps left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

__all__ = ["Effect", "Gates", "until"]

T = TypeVar("T")


class Effect(NamedTuple):
    """A step that began: outside all databases, so that no faulty process can take it back."""

    step: int
    pid: int


class Gates:
    """All of it lies in the folder `$TEST_GATES`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._folder = Path(env["TEST_GATES"])
        self._folder.mkdir(parents=True, exist_ok=True)

    def close(self, thread: str, step: int) -> None:
        """The step stands still once it has begun, until `open`."""
        (self._folder / f"{thread}.{step}").touch()

    def open(self, thread: str, step: int, *, missing_ok: bool = False) -> None:
        (self._folder / f"{thread}.{step}").unlink(missing_ok=missing_ok)

    def order(self, thread: str, step: int, order: str) -> None:
        """What the step of `support.orders` does once it is let go; see there."""
        (self._folder / f"{thread}.{step}.do").write_text(order)

    def forget(self, thread: str, step: int) -> None:
        (self._folder / f"{thread}.{step}.do").unlink()

    def fail(self, thread: str, error: str | None) -> None:
        """How `support.graphs.fails` fails on this thread; None: no more."""
        order = self._folder / f"{thread}.fail"
        if error is None:
            order.unlink()
        else:
            order.write_text(error)

    def effects(self, thread: str) -> list[Effect]:
        """The steps of a thread in the order in which they began."""
        file = self._folder / "effects"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [Effect(int(step), int(pid)) for name, step, pid in lines if name == thread]

    def steps(self, thread: str) -> list[int]:
        return [effect.step for effect in self.effects(thread)]

    async def begun(self, thread: str, step: int, times: int = 1, limit: float = 20) -> Effect:
        """Wait until a step has begun so many times; the last of them."""

        def look() -> Effect | None:
            found = [effect for effect in self.effects(thread) if effect.step == step]
            return found[times - 1] if len(found) >= times else None

        return await until(look, f"step {step} of {thread} has begun {times} time(s)", limit)


async def until(look: Callable[[], T | Awaitable[T | None] | None], what: str, limit: float = 20) -> T:
    """Ask until there is an answer that is not None or False."""
    deadline = time.monotonic() + limit
    while True:
        found = look()
        if isinstance(found, Awaitable):
            found = await found
        if found is not None and found is not False:
            return found  # type: ignore[return-value]  # an awaitable has been awaited above
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.01)
