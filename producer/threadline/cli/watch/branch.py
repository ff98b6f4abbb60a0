"""One line of the tree: how a call stands, what it is about, and how long it takes or took."""

from __future__ import annotations

import re
from typing import Final

from rich.text import Text

from threadline.cli.describe import clock
from threadline.cli.watch.lines import apart
from threadline.cli.watch.model import Call, CallState
from threadline.cli.watch.tree import Row

__all__ = ["branch_line", "known_worker", "spinner"]

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MARKS: Final = {
    CallState.DONE: ("✔", "green"),
    CallState.FAILED: ("✖", "red"),
    CallState.STOPPED: ("■", "yellow"),
}
#: The random end of a worker's id; host and process are enough to know it by.
_RANDOM: Final = re.compile(r"-[0-9a-f]{12}(?![0-9a-zA-Z])")
_MINUTE: Final = 60
#: Below this many columns only the time stands at the right.
_NARROW: Final = 60
_DEEPEST: Final = 4


def branch_line(row: Row, now: float, width: int) -> Text:
    """Draw a row into `width` columns."""
    indent = "  " * (min(row.depth, _DEEPEST) + 1)
    if row.call is None:
        return _remark(row, indent, width)
    mark, style = _MARKS.get(row.call.state, (spinner(now), "cyan"))
    name = row.call.agent or row.call.name
    text = Text.assemble(indent, (f"{mark} ", style), (name, "bold" if row.depth == 0 else ""))
    if row.number > 1:
        text.append(f" ×{row.number}", style="bold")
    if row.title:
        text.append(f" {row.title}", style="dim")
    notes = [f"… {row.more} more" if row.more else row.note] if width >= _NARROW else []
    notes.append(_took(row.call, now))
    return apart(text, Text("  ".join(filter(None, notes)), style="dim"), width)


def known_worker(text: str) -> str:
    """A text with the names of workers as short as a person needs them: `host-pid`."""
    return _RANDOM.sub("", text)


def spinner(now: float) -> str:
    """The sign of what is under way."""
    return _SPINNER[int(now * 8) % len(_SPINNER)]


def _remark(row: Row, indent: str, width: int) -> Text:
    match row.sign:
        case "▏":  # words: their end is the newest
            room = max(8, width - len(indent) - 2)
            text = Text(row.title)
            while text.cell_len > room:
                text = text[max(1, text.cell_len - room) :]
            return Text.assemble(indent, ("▏ ", "cyan"), (text.plain, "italic dim"))
        case "↻":
            return Text(f"{indent}↻ {known_worker(row.title)}", style="bold yellow")
        case _:
            return Text(f"{indent}{row.title}", style="dim")


def _took(call: Call, now: float) -> str:
    if call.state is CallState.STOPPED:
        return "stopped"
    seconds = max(0.0, (call.ended if call.ended is not None else now) - call.began)
    return f"{seconds:.1f} s" if seconds < _MINUTE else clock(seconds)
