"""What happened, one short line each: for pipes, logs, and terminals that want no movement."""

from __future__ import annotations

import shutil
import sys
from types import TracebackType
from typing import Final, Self

from threadline.cli.describe import clock
from threadline.cli.output import clean, cut, say, write_line
from threadline.cli.watch.model import Note, View
from threadline.cli.watch.reduce import reduce
from threadline.contract.events import Event

__all__ = ["PlainLines", "line"]

_WIDTH: Final = 80


def line(note: Note, began: float | None, width: int = _WIDTH) -> str:
    """A note as one line of at most `width` columns: time since the start, what, and which."""
    since = clock(note.at - began) if began is not None else ""
    text = f"{since:>7}  {note.label[:12]:<12} {'  ' * note.depth}{note.text}".rstrip()
    return cut(text, width)


class PlainLines:
    """Prints each note as it comes."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held back."""

    def take(self, event: Event) -> None:
        """Print what the event tells. Raises BrokenPipeError."""
        self.view, notes = reduce(self.view, event)
        for note in notes:
            self.tell(line(note, self.view.began, self._width))

    def tell(self, sentence: str) -> None:
        """A line of one's own among the others. Raises BrokenPipeError."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        write_line(clean(sentence).encode(encoding, errors="replace"))

    def notice(self, sentence: str) -> None:
        """What is to be said of the watching itself; on stderr, because it is nothing that happened to the job."""
        if sentence:
            say(sentence)
