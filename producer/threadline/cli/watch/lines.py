"""Lines of a width: what does not fit gives way with an ellipsis, wide characters count as wide."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.text import Text

__all__ = ["apart", "beside"]


def apart(left: Text, right: Text, width: int) -> Text:
    """Left and right on one line; the left one gives way."""
    left = left.copy()
    if not right.plain:
        left.truncate(width, overflow="ellipsis")
        return left
    left.truncate(max(width - right.cell_len - 2, 1), overflow="ellipsis", pad=True)
    return Text.assemble(left, "  ", right)


def beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    """Two columns, the left one of this width."""
    lines = []
    for one, other in zip_longest(left, right, fillvalue=Text()):
        cell = one.copy()
        cell.truncate(width, overflow="ellipsis", pad=True)
        lines.append(Text.assemble(cell, "  ", other))
    return lines
