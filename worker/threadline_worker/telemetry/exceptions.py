"""What a log line tells of an exception: its types and its way, and what it says only where contents may be shown."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

__all__ = ["as_text", "found_in", "told"]

#: Causes behind one another, exceptions beside one another in a group.
_MOST_LINKS: Final = 5
_FIRST_FRAMES: Final = 6
_LAST_FRAMES: Final = 18


def found_in(exc_info: Any) -> BaseException | None:
    """The exception of a logger's `exc_info`: True, an exception or a tuple."""
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return error if isinstance(error, BaseException) else None


def told(error: BaseException, *, says: bool) -> list[dict[str, Any]]:
    """The exception and its causes, outermost first: `type`, `frames`, `exceptions` of a group; `says` if asked."""
    links: list[dict[str, Any]] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and len(links) < _MOST_LINKS:
        seen.add(id(link))
        links.append(_link(link, says=says))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return links


def as_text(links: list[dict[str, Any]], indent: str = "    ") -> str:
    """The same for a terminal, one line each."""
    lines: list[str] = []
    for number, link in enumerate(links):
        said = f": {link['says']}" if link.get("says") else ""
        lines.append(f"{indent}{'because of ' if number else ''}{link['type']}{said}")
        lines += [f"{indent}  {frame}" for frame in link["frames"]]
        lines += [as_text(member, indent + "    ") for member in link.get("exceptions", [])]
    return "\n".join(lines)


def _link(error: BaseException, *, says: bool) -> dict[str, Any]:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    link: dict[str, Any] = {"type": f"{module}{kind.__qualname__}"}
    if says:
        link["says"] = _said(error)
    # Neither locals nor source lines: they hold messages and keys.
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    link["frames"] = _few([f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames])
    if isinstance(error, BaseExceptionGroup):
        link["exceptions"] = [told(member, says=says) for member in islice(_members(error), _MOST_LINKS)]
    return link


def _members(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """What the groups within groups are about: task groups are nested, and their own ways say nothing."""
    for member in group.exceptions:
        if isinstance(member, BaseExceptionGroup):
            yield from _members(member)
        else:
            yield member


def _said(error: BaseException) -> str:
    try:
        return "\n".join([str(error), *map(str, getattr(error, "__notes__", ()))])
    except Exception as failure:  # noqa: BLE001 - an exception's __str__ is anyone's code
        return f"(its __str__ raises {type(failure).__name__})"


def _few(frames: list[str]) -> list[str]:
    left_out = len(frames) - _FIRST_FRAMES - _LAST_FRAMES
    if left_out <= 0:
        return frames
    return [*frames[:_FIRST_FRAMES], f"({left_out} more)", *frames[-_LAST_FRAMES:]]
