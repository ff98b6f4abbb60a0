"""Reads a folder for the store, and writes one from it: nothing outside the folder is ever read or written.

A link, a name that only looks like another, a file that is too large: refused with its name and the reason, before
anything is stored.
"""

from __future__ import annotations

import base64
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from threadline.errors import ConfigurationError
from threadline_worker.memory.text import MAX_FILE_BYTES, problem

__all__ = ["Document", "checked_path", "read_folder", "write_folder"]


class Document(NamedTuple):
    """A file of a route: `path` begins with a slash, `content` is text or base64 as `encoding` says (utf-8, base64)."""

    path: str
    content: str
    encoding: str

    @property
    def data(self) -> bytes:
        """The file as it is on disk."""
        return base64.b64decode(self.content) if self.encoding == "base64" else self.content.encode()


def read_folder(folder: Path) -> tuple[list[Document], list[str]]:
    """All files below a folder, and why others cannot be taken. Raises ConfigurationError if there is no folder.

    Names that begin with a dot are left out silently, as are empty folders.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder: give the folder whose files are to be imported")
    documents: list[Document] = []
    refused: list[str] = []
    seen: dict[str, str] = {}
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        try:
            document = _document(path, name)
        except ConfigurationError as error:
            refused.append(f"{_shown(name)}: {error}")
            continue
        twin = seen.setdefault(_skeleton(document.path), name)
        if twin != name:
            refused.append(f"{_shown(name)}: looks like {_shown(twin)}: rename one of them")
            continue
        documents.append(document)
    return documents, refused


def write_folder(folder: Path, documents: Iterable[Document]) -> list[Path]:
    """Write documents below a folder, existing files included, but never through a link. The files written.

    Raises ConfigurationError.
    """
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
        target = folder
        for part in checked_path(document.path).strip("/").split("/"):
            if target.is_symlink() and target != folder:
                raise ConfigurationError(f"{target} is a link: remove it, an export writes through none")
            target.mkdir(exist_ok=True)
            target /= part
        _write(target, document.data)
        written.append(target)
    return written


def checked_path(path: str) -> str:
    """A path inside a route, in composed Unicode (NFC), with a leading slash. Raises ConfigurationError."""
    plain = unicodedata.normalize("NFC", path if path.startswith("/") else f"/{path}")
    if reason := problem(plain):
        raise ConfigurationError(reason)
    for part in plain[1:].split("/"):
        # What another program, or a person, would take for `..` or for a slash is taken for it here, too.
        look = unicodedata.normalize("NFKC", part)
        odd = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in part)
        if look in ("", ".", "..") or "/" in look or "\\" in look or part.startswith("~") or odd:
            raise ConfigurationError(
                f"{_shown(path)} is no plain path: rename it (no `..`, `~`, `\\` or invisible signs)"
            )
    return plain


def _walk(folder: Path) -> Iterator[Path]:
    """Files and links, in order; links are found, not followed."""
    for base, folders, names in os.walk(folder, followlinks=False):
        here = Path(base)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in links)
        yield from (here / name for name in sorted([*names, *links]) if not name.startswith("."))


def _document(path: Path, name: str) -> Document:
    plain = checked_path(name)
    try:
        # A link that takes the file's place at this very moment is not followed either; nor is a pipe waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "it is a link: links are not followed" if path.is_symlink() else error.strerror
        raise ConfigurationError(str(why)) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError("it is no regular file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"it has more than {MAX_FILE_BYTES} bytes: split it, or give agents a disk route")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return Document(plain, base64.standard_b64encode(data).decode("ascii"), "base64")
    return Document(plain, text, "utf-8")


def _write(target: Path, data: bytes) -> None:
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written ({error.strerror}): an export follows no links"
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _skeleton(path: str) -> str:
    return unicodedata.normalize("NFKC", path)


def _shown(name: str) -> str:
    return ascii(name)[1:-1]
