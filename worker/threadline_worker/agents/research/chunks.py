"""Cuts a text into passages of about 1,000 characters at paragraph borders, each under the heading it stands below.

The same text always gives the same passages. Knows the headings of Markdown and of reStructuredText.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

TARGET_CHARS = 1_000
HARD_LIMIT_CHARS = 2_000
TITLE_PARAGRAPHS, TITLE_CHARS = 8, 2_000

_ATX = re.compile(r"^ {0,3}#{1,6}\s+(.+?)\s*#*\s*$")
_UNDERLINE = re.compile(r"^([=\-~^\"'*+#`.:])\1{2,}\s*$")
_HTML_H1 = re.compile(r"<h1[^>]*>(.*?)</h1>", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"^\s*(```|~~~)")
_MARKUP = re.compile(r"[`*_]{1,3}|!?\[|\]\([^)]*\)|<[^>]+>")
_MAX_HEADING_CHARS = 120


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: its text, verbatim, and the heading above it (empty where there is none)."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class _Block:
    heading: str
    text: str


def split_text(text: str) -> list[Chunk]:
    """Cut ``text`` into passages; headings start a new one, and a code block is kept whole where it fits."""
    chunks: list[Chunk] = []
    heading, parts, size = "", list[str](), 0
    for block in _blocks(text):
        if parts and (block.heading != heading or size + len(block.text) > TARGET_CHARS):
            chunks.append(Chunk(heading, "\n\n".join(parts)))
            parts, size = [], 0
        heading = block.heading
        parts.append(block.text)
        size += len(block.text)
    if parts:
        chunks.append(Chunk(heading, "\n\n".join(parts)))
    return chunks


def title_of(text: str) -> str:
    """Give the heading of the first rank near the beginning of a text, or an empty string."""
    if match := _HTML_H1.search(text, 0, TITLE_CHARS):
        return _plain(html.unescape(match[1]))
    for paragraph in itertools.islice(_paragraphs(text), TITLE_PARAGRAPHS):
        lines = paragraph.splitlines()
        if _is_title(lines):
            return _leading_heading(lines)[0] or ""
    return ""


def _is_title(lines: list[str]) -> bool:
    if _ATX.match(lines[0]):
        return lines[0].lstrip().startswith("# ")
    return any(_UNDERLINE.match(line) and line[0] in "=*#" for line in lines[:2]) and len(lines) > 1


def _blocks(text: str) -> Iterator[_Block]:
    heading = ""
    for paragraph in _paragraphs(text):
        lines = paragraph.splitlines()
        title, rest = _leading_heading(lines)
        while title is not None:
            heading = title or heading
            title, rest = _leading_heading(rest)
        for piece in _fitting("\n".join(rest).strip("\n")):
            yield _Block(heading, piece)


def _paragraphs(text: str) -> Iterator[str]:
    """Split at blank lines, but not inside a fenced code block."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        if match := _FENCE.match(line):
            fence = "" if fence == match[1] else fence or match[1]
        if not fence and (not line.strip() or _ATX.match(line)) and lines:
            yield "\n".join(lines)
            lines = []
        if line.strip() or fence:
            lines.append(line)
    if lines:
        yield "\n".join(lines)


def _leading_heading(lines: list[str]) -> tuple[str | None, list[str]]:
    """Take one heading off the front: (None, lines) where there is none; an empty heading for a bare rule."""
    if not lines:
        return None, lines
    if match := _ATX.match(lines[0]):
        return _plain(match[1]), lines[1:]
    if _UNDERLINE.match(lines[0]) and len(lines) > 1 and (len(lines) == 2 or _UNDERLINE.match(lines[2])):  # noqa: PLR2004 - overline, title, underline
        return _plain(lines[1]), lines[3:]
    if len(lines) > 1 and _UNDERLINE.match(lines[1]) and len(lines[0]) <= _MAX_HEADING_CHARS:
        return _plain(lines[0]), lines[2:]
    if _UNDERLINE.match(lines[0]):
        return "", lines[1:]
    return None, lines


def _plain(heading: str) -> str:
    return " ".join(_MARKUP.sub("", heading).split())[:_MAX_HEADING_CHARS]


def _fitting(paragraph: str) -> Iterator[str]:
    """Cut what is far too long at a space or line end near the target; nothing of it is lost."""
    while len(paragraph) > HARD_LIMIT_CHARS:
        cut = max(paragraph.rfind(mark, TARGET_CHARS // 2, TARGET_CHARS) for mark in ("\n", ". ", "。", " "))
        cut = cut + 1 if cut > 0 else TARGET_CHARS
        yield paragraph[:cut].strip("\n")
        paragraph = paragraph[cut:].lstrip()
    if paragraph.strip():
        yield paragraph
