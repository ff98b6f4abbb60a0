"""Each event exactly as on the wire, one a line, flushed; on a terminal no control character reaches it."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import Final, Self

from threadline.cli.output import say, write_line
from threadline.contract.events import Event, encode_event

__all__ = ["JsonLines"]

#: What JSON may carry as it is and a terminal may obey: DEL and C1, which in UTF-8 are two bytes.
_OBEYED: Final = re.compile("[\x7f-\x9f]")


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
        encoded = encode_event(event)
        if sys.stdout.isatty():
            # The same JSON: such a character stands inside a string, where it may be escaped.
            encoded = _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded.decode()).encode()
        write_line(encoded)

    def notice(self, sentence: str) -> None:
        """What is to be said of the watching itself; on stderr, stdout is the events'."""
        if sentence:
            say(sentence)
