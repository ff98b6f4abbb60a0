"""The words that are under way, also those of a file that a model is just writing into a call."""

from __future__ import annotations

import re
from typing import Final

from threadline.cli.output import clean
from threadline.cli.watch.model import Piece

__all__ = ["speech"]

#: So much of the end is enough for any terminal's width.
_KEPT: Final = 4_000
_CONTENT: Final = re.compile(r'"(?:content|new_string)"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)?", re.DOTALL)
_ESCAPED: Final = {"\\n": "\n", "\\t": " ", "\\r": "", '\\"': '"', "\\\\": "\\", "\\/": "/"}


def speech(piece: Piece) -> str:
    """One clean line: the end of what is being said, or of what is being written; else which call is prepared."""
    if piece.tool:
        written = " ".join(_written(piece.args).split())
        return f"{piece.tool} … {written}" if written else f"{piece.tool} …"
    return " ".join(clean(piece.text[-_KEPT:]).split())


def _written(args: str) -> str:
    """The text in the unfinished JSON of a call that writes: whatever follows its content's opening quote."""
    found = _CONTENT.search(args)
    if found is None:
        return ""
    return clean(_ESCAPE.sub(lambda escape: _ESCAPED.get(escape.group(), ""), found[1][-_KEPT:]))
