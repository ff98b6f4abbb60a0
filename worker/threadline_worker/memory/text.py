"""What can be kept in the store as a file: a path and a text that Postgres takes, or the reason in one sentence."""

from __future__ import annotations

__all__ = ["MAX_FILE_BYTES", "MAX_PATH_BYTES", "problem"]

#: A file of a persistent route; longer ones belong on disk or in a corpus.
MAX_FILE_BYTES = 1024 * 1024
#: Path and namespace are one index entry of at most 2.7 kB.
MAX_PATH_BYTES = 1024


def problem(path: str, *texts: str) -> str | None:
    """Why this cannot be kept; None if it can."""
    try:
        sizes = [len(text.encode()) for text in (path, *texts)]
    except UnicodeEncodeError:
        return "halves of characters (lone surrogates) cannot be kept: write proper Unicode"
    if path.endswith("/") or not path:
        return "this is a folder: name a file in it"
    if any("\0" in text for text in (path, *texts)):
        return "a NUL character cannot be kept: leave it out"
    if sizes[0] > MAX_PATH_BYTES:
        return f"the path has {sizes[0]} bytes, at most {MAX_PATH_BYTES} can be kept: shorten it"
    if max(sizes[1:], default=0) > MAX_FILE_BYTES:
        return f"the text has {max(sizes[1:])} bytes, at most {MAX_FILE_BYTES} can be kept: split it into several files"
    return None
