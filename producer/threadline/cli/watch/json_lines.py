"""Each event exactly as on the wire, one a line, flushed; on a terminal no control character reaches it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from threadline.cli.output import say, write_json_line
from threadline.contract.events import Event, encode_event

__all__ = ["JsonLines"]


class JsonLines:
    """Prints events."""

    view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held back."""

    def take(self, event: Event) -> None:
        """Print the event. Raises BrokenPipeError."""
        write_json_line(encode_event(event))

    def notice(self, sentence: str) -> None:
        """What is to be said of the watching itself; on stderr, stdout is the events'."""
        if sentence:
            say(sentence)
