"""Lines on a terminal that are replaced in place: only what has changed is written, in one piece, whatever its size.

A line that the terminal takes for wider than we do is cut, not wrapped (DECAWM), so that it cannot shift the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TextIO

__all__ = ["Line", "Screen"]

#: Terminals that know it (DEC 2026) show nothing half-drawn; others ignore it.
_BEGIN: Final = "\x1b[?2026h\x1b[?7l"
_END: Final = "\x1b[?7h\x1b[?2026l"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ERASE_BELOW: Final = "\x1b[J"
_ERASE_RIGHT: Final = "\x1b[K"


class Line(NamedTuple):
    """A line as it is written, with its colours, and the columns that it takes."""

    text: str
    columns: int


class Screen:
    """The last lines of a terminal. Between calls the cursor stands at the beginning of the last of them."""

    def __init__(self, out: TextIO, *, size: Callable[[], os.terminal_size] | None = None) -> None:
        self._out = out
        self._size = size or (lambda: os.get_terminal_size(out.fileno()))
        self._shown: list[Line] = []
        self._drawn_at: os.terminal_size | None = None

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal, 80 by 24 if it does not tell."""
        try:
            size = self._size()
        except OSError:
            size = os.terminal_size((0, 0))
        return os.terminal_size((size.columns or 80, size.lines or 24))

    def open(self) -> None:
        """Hide the cursor."""
        self._write(_HIDE)

    def show(self, lines: Sequence[Line]) -> None:
        """Have these lines there instead of the ones before."""
        size = self.size
        again = self._erased(size) if self._drawn_at not in {None, size} else ""
        self._drawn_at = size
        if not again and list(lines) == self._shown:
            return
        self._write(_BEGIN + again + self._painted(lines) + _END)

    def above(self, text: str, lines: Sequence[Line]) -> None:
        """Write a text above the lines, where it stays."""
        self._write(_BEGIN + self._erased(self.size) + _END + text + "\r\n" + _BEGIN + self._painted(lines) + _END)

    def close(self, lines: Sequence[Line]) -> None:
        """Leave these lines there, and give the cursor back below them."""
        # All anew: a ^C that the terminal has echoed stands among them.
        self._write(_BEGIN + self._erased(self.size) + self._painted(lines) + _END + "\r\n" * bool(lines) + _SHOW)

    def _painted(self, lines: Sequence[Line]) -> str:
        before, self._shown = self._shown, list(lines)
        parts = [f"\x1b[{len(before) - 1}A" if len(before) > 1 else "", "\r"]
        for index, line in enumerate(lines):
            if index:
                # Only a line feed makes a new line at the bottom of the screen.
                parts.append("\x1b[1B\r" if index < len(before) else "\r\n")
            if index >= len(before) or before[index] != line:
                parts.append(line.text + _ERASE_RIGHT)
        if len(lines) < len(before):
            parts.append(f"\x1b[1B\r{_ERASE_BELOW}\x1b[1A")
        return "".join([*parts, "\r"])

    def _erased(self, size: os.terminal_size) -> str:
        """Take away what is there; a terminal that has become narrower has broken it into more lines."""
        above = sum(max(1, -(-line.columns // size.columns)) for line in self._shown[:-1])
        self._shown = []
        return (f"\x1b[{above}A" if above else "") + "\r" + _ERASE_BELOW

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
