"""The moving picture on a terminal; the cursor comes back however it ends."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live

from threadline.cli.watch.draw import picture
from threadline.cli.watch.model import View
from threadline.cli.watch.reduce import reduce
from threadline.contract.events import Event

__all__ = ["LivePicture"]


class LivePicture:
    """Draws a few times a second what was seen last; its last picture stays on the terminal."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._console = Console(highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=8,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._before: Any = None

    def __enter__(self) -> Self:
        # Told to end, a process must not leave the terminal without its cursor.
        self._before = signal.signal(signal.SIGTERM, _leave)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        signal.signal(signal.SIGTERM, self._before)

    def take(self, event: Event) -> None:
        """See the event; the next picture shows it. The view is one value, so the drawing thread needs no lock."""
        self.view, _ = reduce(self.view, event)

    def tell(self, sentence: str) -> None:
        """A line of one's own above the picture; anything else that writes to this terminal would tear it."""
        self._console.print(sentence, markup=False)

    def _draw(self) -> RenderableType:
        size = self._console.size
        # One line below stays free, else each picture would scroll the last one away.
        return picture(self.view, now=time.time(), width=size.width, height=size.height - 1)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
