"""The moving picture on a terminal; the cursor comes back however it ends."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.text import Text

from threadline.cli.output import clean, one_line
from threadline.cli.watch.draw import picture
from threadline.cli.watch.model import View
from threadline.cli.watch.reduce import reduce
from threadline.cli.watch.screen import Line, Screen
from threadline.contract.events import Event

__all__ = ["LivePicture", "Moving"]

_SECONDS: Final = 1 / 8

#: Draws at a moment into columns and lines, with a notice.
Draw = Callable[[float, int, int, str], list[Text]]


class Moving:
    """Draws eight times a second what `draw` gives, in a thread of its own; its last picture stays on the terminal."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._console = Console(highlight=False)
        self._screen = Screen(sys.stdout)
        self._notice = ""
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="picture", daemon=True)
        self._before: Any = None

    def __enter__(self) -> Self:
        # Told to end, a process must not leave the terminal without its cursor.
        self._before = signal.signal(signal.SIGTERM, _leave)
        sys.stdout.flush()
        self._screen.open()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with self._lock:
            self._screen.close(self._lines())
        signal.signal(signal.SIGTERM, self._before)

    def tell(self, sentence: str) -> None:
        """A line of one's own above the picture; anything else that writes to this terminal would tear it."""
        with self._lock:
            self._screen.above(clean(sentence), self._lines())

    def notice(self, sentence: str) -> None:
        """What is to be said of the watching itself until something else is; empty is nothing."""
        self._notice = one_line(sentence)

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                self._screen.show(self._lines())
            self._over.wait(_SECONDS)

    def _lines(self) -> list[Line]:
        size = self._screen.size
        # One line stays free for what the shell or the terminal writes below.
        texts = self._draw(time.time(), size.columns, max(1, size.lines - 1), self._notice)
        return [Line(self._coloured(text), text.cell_len) for text in texts]

    def _coloured(self, text: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()


class LivePicture(Moving):
    """The picture of one job."""

    def __init__(self, view: View) -> None:
        self.view = view
        super().__init__(self._picture)

    def take(self, event: Event) -> None:
        """See the event; the next picture shows it. The view is one value, so the drawing thread needs no lock."""
        self.view, _ = reduce(self.view, event)

    def _picture(self, now: float, width: int, height: int, notice: str) -> list[Text]:
        return picture(self.view, now=now, width=width, height=height, notice=notice)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
