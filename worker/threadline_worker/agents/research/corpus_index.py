"""Builds the search index of a folder once and finds it again; workers that build at once all end with a whole one.

The index is a SQLite file named for the folder and a fingerprint of what lies in it. It is written under another name
and renamed, so whoever sees the final name sees a complete index.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import structlog

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.research.chunks import split_text
from threadline_worker.agents.research.documents import READERS, UnreadableDocumentError, read_document
from threadline_worker.agents.words import searchable

# Raise it when the schema, the cutting or the reading changes: older indexes are then built anew.
FORMAT = 4
# Another worker may still read the index of an earlier state of the folder.
KEPT_INDEXES = 5
ID_DIGITS = 8

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str  # relative to the corpus, with forward slashes
    stamp: str


def ensure_index(root: Path, cache_dir: Path) -> Path:
    """Give the path of a complete index of ``root``, building it where there is none yet.

    Raises:
        AgentConfigError: the corpus is no readable folder, or the cache folder cannot be written.

    """
    try:
        found = list(_walk(_checked(root)))
    except OSError as error:
        raise AgentConfigError(
            f"THREADLINE_CORPUS={root} cannot be read ({error.strerror}); fix its access."
        ) from error
    folder = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    index = cache_dir / f"corpus-{folder}-{_fingerprint(found)}.db"
    if not found:
        log.warning("corpus.empty", corpus=str(root), suffixes=sorted(READERS))
    if index.exists():
        return index
    try:
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _build(found, index)
    except (OSError, sqlite3.OperationalError) as error:
        raise AgentConfigError(
            f"The search index cannot be written to {cache_dir} ({error}); set THREADLINE_CACHE_DIR to another folder."
        ) from error
    _prune(index)
    return index


def _checked(root: Path) -> Path:
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise AgentConfigError(f"The folder THREADLINE_CORPUS={root} {state}; set it to one with .md .txt .html .pdf.")
    return root.resolve()


def _walk(root: Path) -> Iterator[_File]:
    """List the readable kinds of file in a fixed order, without hidden ones and links that lead out of the folder."""
    for folder, folders, names in os.walk(root, followlinks=False, onerror=_skip_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in READERS:
                continue
            if not path.resolve().is_relative_to(root):
                log.warning("corpus.skipped", path=str(path), reason="a link out of the corpus")
            elif path.is_file():
                facts = path.stat()
                yield _File(path, path.relative_to(root).as_posix(), f"{facts.st_size}:{facts.st_mtime_ns}")


def _skip_folder(error: OSError) -> None:
    log.warning("corpus.skipped", path=error.filename, reason=error.strerror)


def _fingerprint(found: list[_File]) -> str:
    digest = hashlib.sha256(f"format {FORMAT}".encode())
    for file in found:
        digest.update(f"\0{file.name}\0{file.stamp}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _build(found: list[_File], index: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=f"{index.stem}.", suffix=".building", dir=index.parent)
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(name)) as database:
            database.execute("PRAGMA synchronous = OFF")  # a half-written file is never renamed
            database.executescript(query("schema"))
            count = _fill(database, found)
            database.commit()
        Path(name).replace(index)
    finally:
        Path(name).unlink(missing_ok=True)
    log.info("corpus.indexed", files=len(found), passages=count, index=str(index))


def _fill(database: sqlite3.Connection, found: list[_File]) -> int:
    number, used = 0, set[str]()
    for file in found:
        for title, heading, location, text in _passages(file):
            number += 1
            row = (number, _source_id(file.name, text, used), title, heading, _storable(file.name), location, text)
            database.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            words = (number, searchable(title), searchable(heading), searchable(text))
            database.execute("INSERT INTO words (rowid, title, heading, text) VALUES (?, ?, ?, ?)", words)
    database.execute("INSERT INTO words (words) VALUES ('optimize')")
    return number


def _passages(file: _File) -> Iterator[tuple[str, str, str, str]]:
    try:
        document = read_document(file.path)
    except UnreadableDocumentError as error:
        log.warning("corpus.skipped", path=str(file.path), reason=str(error))
        return
    for part in document.parts:
        seen = Counter[str]()
        location = _storable(f"{file.name}, {part.where}" if part.where else file.name)
        for chunk in split_text(part.text):
            seen[chunk.heading] += 1
            heading = _numbered(chunk.heading, seen[chunk.heading])
            yield _storable(document.title), _storable(heading), location, _storable(chunk.text)


def _numbered(heading: str, count: int) -> str:
    """Tell the passages below one heading apart, for whoever looks them up."""
    return heading if count == 1 else f"{heading}, part {count}".removeprefix(", ")


def _storable(text: str) -> str:
    """Make text that SQLite, JSON and Postgres take: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _source_id(name: str, text: str, used: set[str]) -> str:
    """Name a passage after its file and its words, so the name outlives restarts and edits elsewhere in the file."""
    digest = hashlib.sha256(f"{name}\0{text}".encode("utf-8", "surrogateescape"))
    candidate = f"S{digest.hexdigest()[:ID_DIGITS]}"
    while candidate in used:  # the same passage twice in a file, or a collision
        digest.update(b"again")
        candidate = f"S{digest.hexdigest()[:ID_DIGITS]}"
    used.add(candidate)
    return candidate


def _prune(index: Path) -> None:
    """Remove what earlier states of the same folder left; an index that another worker prunes first is gone as well."""
    folder = index.name.rsplit("-", 1)[0]
    with contextlib.suppress(OSError):
        kept = sorted(index.parent.glob(f"{folder}-*.db"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[KEPT_INDEXES:]:
            path.unlink(missing_ok=True)


def query(name: str) -> str:
    """Load one of the SQL files beside this module."""
    return (files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
