"""Screens of terminals as one animated SVG: no script, no font, nothing from outside; the last screen is the still.

Frames lie side by side on a strip that CSS moves; what cannot animate, or must not, shows the last one. Its own dark
ground makes it readable on light and dark pages.
"""
# ruff: noqa: INP001 - a module beside the script that uses it

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final, NamedTuple

from pyte.screens import Char, Screen

__all__ = ["Frame", "Pane", "Segment", "animated", "rows_of", "still"]

_CELL: Final = 8.4
_LINE: Final = 18
_FONT: Final = 14
_PAD: Final = 14
_BAR: Final = 30
#: Seconds that the last screen stays before it begins again.
_REST: Final = 5.0
_COLOURS: Final = {
    "default": "#d1d7e0",
    "black": "#656c76",
    "red": "#f47067",
    "green": "#57ab5a",
    "brown": "#e0b03f",
    "blue": "#539bf5",
    "magenta": "#b083f0",
    "cyan": "#39c5cf",
    "white": "#d1d7e0",
    "brightblack": "#8b949e",
}


class Segment(NamedTuple):
    """Characters of one style; `column` is where they begin."""

    column: int
    text: str
    style: str


Row = tuple[Segment, ...]


class Pane(NamedTuple):
    """A terminal's title and its height in lines."""

    title: str
    lines: int


class Frame(NamedTuple):
    """What all panes showed from a moment (seconds) on."""

    at: float
    panes: tuple[tuple[Row, ...], ...]


def rows_of(screen: Screen) -> tuple[Row, ...]:
    """What a terminal shows, without blanks at the ends of lines."""
    return tuple(tuple(_segments(screen.buffer[line], screen.columns)) for line in range(screen.lines))


def animated(frames: Sequence[Frame], panes: Sequence[Pane], columns: int) -> str:
    """The film. The seconds between frames are kept."""
    width = _width(columns)
    total = frames[-1].at - frames[0].at + _REST
    last = f"translateX({-(len(frames) - 1) * width:g}px)"
    stops = "".join(
        f"{(frame.at - frames[0].at) / total * 100:.2f}%{{transform:translateX({-index * width:g}px)}}"
        for index, frame in enumerate(frames)
    )
    motion = (
        f".film{{transform:{last};animation:film {total:.2f}s step-end infinite}}"
        f"@keyframes film{{{stops}}}"
        f"@media(prefers-reduced-motion:reduce){{.film{{animation:none}}}}"
    )
    return _document(frames, panes, columns, motion)


def still(frame: Frame, panes: Sequence[Pane], columns: int) -> str:
    """One screen, for looking at it with tools that do not animate."""
    return _document([frame], panes, columns, "")


def _document(frames: Sequence[Frame], panes: Sequence[Pane], columns: int, motion: str) -> str:
    width = _width(columns)
    tops = list(_tops(panes))
    height = tops[-1] + panes[-1].lines * _LINE + _PAD
    rows: dict[Row, str] = {}
    film = "".join(_frame(frame, index * width, tops, rows) for index, frame in enumerate(frames))
    known = "".join(_row(row, name) for row, name in rows.items())
    bars = "".join(
        _bar(pane.title, top, width, first=not index) for index, (pane, top) in enumerate(zip(panes, tops, strict=True))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img"><title>{escape(panes[0].title)}</title>'
        f"<style>text{{font:{_FONT}px ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono','Liberation Mono',"
        f"Consolas,monospace;fill:{_COLOURS['default']};white-space:pre}}{_styles()}{motion}</style>"
        f"<defs>{known}</defs>"
        f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="8" fill="#0d1117" stroke="#444c56"/>'
        f"{bars}"
        # Only the ground's width is in sight; GitHub shows the picture as an image, which cuts by itself.
        f'<svg width="{width:g}" height="{height:g}"><g class="film">{film}</g></svg></svg>\n'
    )


def _frame(frame: Frame, x: float, tops: Sequence[float], rows: dict[Row, str]) -> str:
    uses = []
    for top, pane in zip(tops, frame.panes, strict=True):
        for line, row in enumerate(pane):
            if row:
                name = rows.setdefault(row, f"r{len(rows):x}")
                uses.append(f'<use href="#{name}" y="{top + line * _LINE:g}"/>')
    return f'<g transform="translate({x:g})">{"".join(uses)}</g>'


def _row(row: Row, name: str) -> str:
    spans = "".join(_span(segment) for segment in row)
    return f'<text id="{name}" y="{_FONT}">{spans}</text>'


def _span(segment: Segment) -> str:
    style = f' class="{segment.style}"' if segment.style else ""
    # The place and width of each piece are given, so that columns stand also where a font is narrower.
    room = f' textLength="{len(segment.text) * _CELL:.0f}"' if len(segment.text) > 1 and segment.text.isascii() else ""
    return f'<tspan x="{_PAD + segment.column * _CELL:.1f}"{room}{style}>{escape(segment.text, quote=False)}</tspan>'


def _bar(title: str, top: float, width: float, *, first: bool) -> str:
    y = top - _BAR
    line = "" if first else f'<path d="M0 {y:g}H{width:g}" stroke="#444c56"/>'
    dots = "".join(f'<circle cx="{18 + 18 * i}" cy="{y + _BAR / 2 + 1:g}" r="5" fill="#444c56"/>' for i in range(3))
    return f'{line}{dots}<text x="76" y="{y + _BAR / 2 + 6:g}" class="g">{escape(title)}</text>'


def _tops(panes: Sequence[Pane]) -> Iterator[float]:
    top = 0.0
    for pane in panes:
        top += _BAR
        yield top
        top += pane.lines * _LINE + _PAD / 2


def _width(columns: int) -> float:
    return round(columns * _CELL + 2 * _PAD)


def _segments(cells: dict[int, Char], columns: int) -> Iterator[Segment]:
    """Runs of one style; blanks join the run before them. pyte leaves the second cell of a wide character empty."""
    text, style, begin = "", "", 0
    last = max((column for column in range(columns) if cells[column].data.strip()), default=-1)
    for column in range(last + 1):
        cell = cells[column]
        own = _style(cell)
        if own == style or (text and cell.data == " " and not cell.reverse):
            text += cell.data
            continue
        if text.strip():
            yield from _pieces(begin, text, style)
        text, style, begin = cell.data, own, column
    if text.strip():
        yield from _pieces(begin, text, style)


def _pieces(begin: int, text: str, style: str) -> Iterator[Segment]:
    """What stands between wider blanks, which SVG would close up; signs apart, which may come from another font."""
    for found in re.finditer(r"[!-~]+(?: [!-~]+)*|[^ -~]+", text):
        yield Segment(begin + found.start(), found[0], style)


def _style(cell: Char) -> str:
    names = [_letter(cell.fg)] if cell.fg != "default" else []
    names += ["B"] * cell.bold + ["I"] * cell.italics
    return " ".join(names)


def _styles() -> str:
    colours = "".join(f".{_letter(name)}{{fill:{colour}}}" for name, colour in _COLOURS.items() if name != "default")
    return f"{colours}.B{{font-weight:bold}}.I{{font-style:italic}}"


def _letter(colour: str) -> str:
    return {"brightblack": "g", "green": "n", "black": "k", "brown": "y", "blue": "u"}.get(colour, colour[0])
