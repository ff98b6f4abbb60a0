"""Lines of a width: what does not fit gives way with an ellipsis, wide characters count as wide."""

from __future__ import annotations

from rich.text import Text

__all__ = ["apart"]


def apart(left: Text, right: Text, width: int) -> Text:
    """Left and right on one line; the left one gives way."""
    left = left.copy()
    if not right.plain:
        left.truncate(width, overflow="ellipsis")
        return left
    left.truncate(max(width - right.cell_len - 2, 1), overflow="ellipsis", pad=True)
    return Text.assemble(left, "  ", right)
