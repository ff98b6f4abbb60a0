"""Reads a file into text with a title, or says why it cannot; it never takes anything else down with it."""

from __future__ import annotations

import codecs
import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from threadline_worker.agents.research.chunks import title_of

MAX_BYTES = 20 * 1024 * 1024
MAX_PDF_PAGES = 2_000

_HTML_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class UnreadableDocumentError(Exception):
    """A file gave no text; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Part:
    """Text of a document and where in it the text stands: ``page 3``, or empty for the whole."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a file; ``title`` is its own, or its file name where it has none."""

    title: str
    parts: tuple[Part, ...]


def read_document(path: Path) -> Document:
    """Read one file by its suffix.

    Raises:
        UnreadableDocumentError: too large, not decodable, broken, or without text.

    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableDocumentError(f"larger than {MAX_BYTES // 1024 // 1024} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableDocumentError(error.strerror or str(error)) from error
    return parse_document(content, path.suffix.lower(), name=path.name)


def parse_document(content: bytes, suffix: str, *, name: str) -> Document:
    """Turn the bytes of a file of kind ``suffix`` (one of ``READERS``) into text.

    Raises:
        UnreadableDocumentError: not decodable, broken, or without text.

    """
    document = READERS[suffix](content, PurePath(name).stem)
    if not any(part.text.strip() for part in document.parts):
        raise UnreadableDocumentError("has no text")
    return document


def _read_text(content: bytes, fallback: str) -> Document:
    text = _decode(content)
    return Document(title_of(text) or fallback, (Part("", text),))


def _read_html(content: bytes, fallback: str) -> Document:
    import trafilatura  # noqa: PLC0415 - takes 0.3 s, and only pages in HTML need it

    page = _decode_html(content)
    text = trafilatura.extract(page, include_comments=False, favor_recall=True, output_format="markdown")
    title = _HTML_TITLE.search(page)
    named = " ".join(html.unescape(title[1]).split()) if title else ""
    return Document(named or fallback, (Part("", text or trafilatura.html2txt(page) or ""),))


def _read_pdf(content: bytes, fallback: str) -> Document:
    from pypdf import PdfReader  # noqa: PLC0415 - takes 0.2 s, and only PDFs need it

    try:
        reader = PdfReader(io.BytesIO(content))
        pages = [page.extract_text() for page in reader.pages[:MAX_PDF_PAGES]]
        title = reader.metadata.title if reader.metadata else None
    except Exception as error:  # a boundary: on a broken file pypdf raises whatever the damage leads to
        raise UnreadableDocumentError(f"not a readable PDF ({error or type(error).__name__})") from error
    parts = (Part(f"page {number}", text) for number, text in enumerate(pages, start=1) if text.strip())
    return Document(str(title or "").strip() or fallback, tuple(parts))


def _decode(content: bytes) -> str:
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableDocumentError(f"is not {encoding.removesuffix('-sig').upper()} text") from error
    if "\0" in text:
        raise UnreadableDocumentError("is binary, not text")
    return text


def _decode_html(content: bytes) -> str:
    from trafilatura.utils import decode_file  # noqa: PLC0415 - see _read_html

    return str(decode_file(content))


READERS: dict[str, Callable[[bytes, str], Document]] = {
    ".md": _read_text,
    ".txt": _read_text,
    ".html": _read_html,
    ".pdf": _read_pdf,
}
