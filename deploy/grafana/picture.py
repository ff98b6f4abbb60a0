"""Draws the dashboard as one SVG from what a real Prometheus answered, for the documents; no browser, no Grafana."""
# ruff: noqa: INP001 - a module of a script's folder, in no package

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

__all__ = ["Drawn", "Point", "draw"]

_WIDTH: Final = 320
_HEIGHT: Final = 150
_COLUMNS: Final = 3
_MARGIN: Final = 12
_HEAD: Final = 28
_LEFT: Final = 44
_BOTTOM: Final = 34
_COLOURS: Final = ("#5794f2", "#73bf69", "#f2cc0c", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#8ab8ff")
_UNITS: Final = {"s": " s", "ops": "/s", "short": ""}

#: Seconds since the beginning, and the value.
Point = tuple[float, float]


class Drawn(NamedTuple):
    """A panel: its title, Grafana's name of the unit, and the points of each series by its legend."""

    title: str
    unit: str
    series: Mapping[str, Sequence[Point]]


def draw(rows: Mapping[str, Sequence[Drawn]], seconds: float) -> str:
    """The SVG: `rows` of panels under their titles, each over `seconds` seconds."""
    body: list[str] = []
    y = _MARGIN
    for title, panels in rows.items():
        body.append(f'<text x="{_MARGIN}" y="{y + 18}" class="row">{escape(title)}</text>')
        y += _HEAD
        for place, panel in enumerate(panels):
            x = _MARGIN + place % _COLUMNS * (_WIDTH + _MARGIN)
            top = y + place // _COLUMNS * (_HEIGHT + _MARGIN)
            body.append(f'<g transform="translate({x},{top})">{"".join(_panel(panel, seconds))}</g>')
        y += -(-len(panels) // _COLUMNS) * (_HEIGHT + _MARGIN)
    width = _MARGIN + _COLUMNS * (_WIDTH + _MARGIN)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" font-family="sans-serif">\n'
        "<style>text{fill:#ccccdc;font-size:10px}.row{font-size:14px;font-weight:bold}.title{font-size:11px}"
        ".end{text-anchor:end}</style>\n"
        f'<rect width="{width}" height="{y}" fill="#111217"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(panel: Drawn, seconds: float) -> Iterator[str]:
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="3" fill="#181b1f" stroke="#2c3235"/>'
    yield f'<text x="8" y="15" class="title">{escape(panel.title)}</text>'
    highest = max((value for points in panel.series.values() for _, value in points), default=0.0)
    top = _round_up(highest)
    for part in (0, 0.5, 1):
        y = _y(top * part, top)
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 8}" stroke="#2c3235"/>'
        yield f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" class="end">{top * part:g}{_UNITS[panel.unit]}</text>'
    for colour, points in zip(_cycle(), panel.series.values(), strict=False):
        yield f'<path d="{_line(points, seconds, top)}" fill="none" stroke="{colour}" stroke-width="1.3"/>'
    yield from _legend(list(panel.series))


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = 8.0
    for colour, name in zip(_cycle(), names, strict=False):
        wide = 14 + 5.4 * len(name)
        if x + wide > _WIDTH - 4:
            yield f'<text x="{x:.0f}" y="{_HEIGHT - 8}">…</text>'
            return
        yield f'<rect x="{x:.0f}" y="{_HEIGHT - 15}" width="8" height="3" fill="{colour}"/>'
        yield f'<text x="{x + 11:.0f}" y="{_HEIGHT - 10}">{escape(name)}</text>'
        x += wide + 6


def _line(points: Iterable[Point], seconds: float, top: float) -> str:
    """Moves over holes: a series that begins later, or a quantile of nothing, is no line."""
    words, before = [], -math.inf
    for moment, value in points:
        x = _LEFT + moment / seconds * (_WIDTH - 8 - _LEFT)
        words.append(f"{'M' if moment - before > seconds / 20 else 'L'}{x:.1f} {_y(value, top):.1f}")
        before = moment
    return "".join(words)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - 26)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _cycle() -> Iterator[str]:
    while True:
        yield from _COLOURS
