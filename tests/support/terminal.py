"""A program in a real pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Self

import pexpect
import pyte

__all__ = ["THREADLINE", "Terminal"]

THREADLINE: Final = (sys.executable, "-m", "threadline.cli")
SECONDS: Final = 20.0


class Terminal:
    """`threadline ARGS` on a terminal of this size; it is gone when the block is left."""

    def __init__(self, env: Mapping[str, str], *args: str, width: int = 80, height: int = 24) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self.screen)
        self.raw = ""
        program, *rest = THREADLINE
        self.child = pexpect.spawn(
            program,
            [*rest, *args],
            env={"TERM": "xterm-256color", **env},
            dimensions=(height, width),
            encoding="utf-8",
            timeout=SECONDS,
        )
        self.child.delaybeforesend = None
        self.child.delayafterclose = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.child.close(force=True)

    @property
    def text(self) -> str:
        """The screen, without blanks at the ends of lines."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def until(self, wanted: str | Callable[[str], object]) -> str:
        """Read until the screen shows this; gives the screen. Fails with the screen if it never does."""
        shows = wanted if callable(wanted) else lambda text: wanted in text
        with suppress(pexpect.EOF):
            while not shows(self.text):
                try:
                    self._read()
                except pexpect.TIMEOUT:
                    raise AssertionError(f"never seen: {wanted!r}\n{self.text}") from None
        assert shows(self.text), f"ended without {wanted!r}\n{self.text}"
        return self.text

    def end(self) -> int | None:
        """Read to the end; the exit code."""
        with suppress(pexpect.EOF):
            while True:
                self._read()
        self.child.close()
        return self.child.exitstatus

    def resize(self, width: int, height: int) -> None:
        """As a person does with the mouse."""
        self.screen.resize(height, width)
        self.child.setwinsize(height, width)

    @property
    def sequences(self) -> set[str]:
        """All escape sequences that were written, numbers as 0."""
        return {re.sub(r"\d+", "0", found) for found in re.findall(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|.)", self.raw)}

    def _read(self) -> None:
        data = self.child.read_nonblocking(65_536, timeout=SECONDS)
        self.raw += data
        self._stream.feed(data)
