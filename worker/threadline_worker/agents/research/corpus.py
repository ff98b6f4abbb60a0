"""Searches a folder of documents; safe to use from many threads, and no query is a syntax error."""

from __future__ import annotations

import re
import sqlite3
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from threadline_worker.agents.research.corpus_index import ensure_index, query
from threadline_worker.agents.research.state import Source
from threadline_worker.agents.words import match_expression, words_of

SNIPPET_CHARS = 320
MAX_LIMIT = 20


class CorpusError(Exception):
    """The index could not be read; the message is fit for a model."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: its stable id, where it stands, and its text, verbatim."""

    id: str
    title: str
    heading: str
    location: str
    text: str
    previous_id: str | None = None
    next_id: str | None = None

    @property
    def source(self) -> Source:
        """What the report says of it."""
        title = f"{self.title}: {self.heading}" if self.heading else self.title
        if self.heading.casefold().startswith(self.title.casefold()):
            title = self.heading
        return {"id": self.id, "title": title, "location": self.location}


class Corpus:
    """An indexed folder. Reads block, so call them in a thread; each thread has its own read-only connection."""

    def __init__(self, index: Path) -> None:
        self._uri = f"{index.resolve().as_uri()}?mode=ro&immutable=1"
        self._local = threading.local()
        opened: list[sqlite3.Connection] = []
        self._opened = opened
        self.close = weakref.finalize(self, _close, opened)
        self._search, self._passage = query("search"), query("passage")

    @classmethod
    def open(cls, folder: Path, cache_dir: Path) -> Corpus:
        """Open the index of ``folder`` in ``cache_dir``, building it first where needed.

        Raises:
            AgentConfigError: the folder does not exist or cannot be read, or the index cannot be written.

        """
        return cls(ensure_index(folder, cache_dir))

    def search(self, text: str, limit: int = 6) -> list[Passage]:
        """Give the passages that fit ``text`` best, at most ``limit`` (1 to 20); none where nothing fits.

        Raises:
            CorpusError: the index has gone or is broken.

        """
        match = match_expression(text)
        if not match:
            return []
        rows = self._rows(self._search, {"match": match, "limit": max(1, min(limit, MAX_LIMIT))})
        return [Passage(*row) for row in rows]

    def read(self, source_id: str) -> Passage | None:
        """Give one passage by its id, or None.

        Raises:
            CorpusError: the index has gone or is broken.

        """
        return next((Passage(*row) for row in self._rows(self._passage, {"id": source_id})), None)

    def _rows(self, statement: str, values: dict[str, object]) -> list[tuple[str, ...]]:
        try:
            return self._connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise CorpusError(f"The search index cannot be read ({error}); go on without it.") from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)  # closed by another thread
            self._opened.append(connection)
            self._local.connection = connection
        return connection


def _close(opened: list[sqlite3.Connection]) -> None:
    while opened:
        opened.pop().close()


def snippet(text: str, wanted: str) -> str:
    """Cut out the stretch of ``text`` with the most of the words of ``wanted``; marks where it was cut."""
    flat = " ".join(text.split())
    if len(flat) <= SNIPPET_CHARS:
        return flat
    terms = words_of(wanted)
    starts = [0, *(match.end() for match in re.finditer(r"[.!?]\s|\s(?=[-*•])", flat) if match.end() < len(flat))]
    best = max(starts, key=lambda start: _hits(_cut(flat, start), terms))
    return f"… {_cut(flat, best)}" if best else _cut(flat, best)


def _cut(flat: str, start: int) -> str:
    piece = flat[start : start + SNIPPET_CHARS]
    return piece if start + SNIPPET_CHARS >= len(flat) else f"{piece.rsplit(' ', 1)[0]} …"


def _hits(piece: str, terms: list[str]) -> int:
    """Count the terms in a piece; those in its first half twice, so that they do not stand at the very end."""
    folded = piece.casefold()
    return sum((term in folded) + (term in folded[: len(folded) // 2]) for term in terms)
