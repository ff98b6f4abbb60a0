"""The project's documents as tests read them: code blocks, tables, links and anchors, by a real Markdown parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["DOCUMENTS", "ROOT", "Block", "anchors", "block", "blocks", "inline_code", "links", "rows"]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [path for path in ROOT.glob("*.md") if path.name.isupper() or path.stem.isupper()] + list(ROOT.glob("docs/**/*.md"))
)
_parser = MarkdownIt("commonmark").enable("table")


class Block(NamedTuple):
    """A fenced code block: ```` ```python produce.py ```` has the language `python` and the name `produce.py`."""

    document: Path
    language: str
    name: str
    text: str


def _tokens(document: Path) -> list[Token]:
    return _parser.parse(document.read_text(encoding="utf-8"))


def blocks(document: Path) -> list[Block]:
    """All fenced blocks, in order."""
    found = []
    for token in _tokens(document):
        if token.type == "fence":
            language, _, name = token.info.strip().partition(" ")
            found.append(Block(document, language, name.strip(), token.content))
    return found


def block(document: str, name: str) -> str:
    """The text of the one block of this name (or the first of this language)."""
    for found in blocks(ROOT / document):
        if name in {found.name, found.language}:
            return found.text
    raise AssertionError(f"{document} has no block {name!r}")


def links(document: Path) -> list[str]:
    """The targets of all links and images."""
    return [str(token.attrs.get("href") or token.attrs.get("src")) for token in _inline(document) if token.attrs]


def inline_code(document: Path) -> list[str]:
    """The contents of all `code`."""
    return [token.content for token in _inline(document) if token.type == "code_inline"]


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as hosting sites make them."""
    tokens = _tokens(document)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def rows(document: str, first_heading: str) -> list[list[str]]:
    """The body rows of the first table whose first column has this heading."""
    table: list[list[str]] = []
    for token in _tokens(ROOT / document):
        match token.type:
            case "table_open":
                table = []
            case "tr_open":
                table.append([])
            case "inline" if table:
                table[-1].append(token.content)
            case "table_close" if table[0][0] == first_heading:
                return table[1:]
    raise AssertionError(f"{document} has no table that begins with {first_heading!r}")


def _inline(document: Path) -> Iterator[Token]:
    for token in _tokens(document):
        yield from token.children or ()
