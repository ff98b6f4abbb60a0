"""Reads a page of the public web within fixed limits, or raises one error that a model can act on."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import httpx

from threadline_worker.agents.research.documents import Document, UnreadableDocumentError, parse_document
from threadline_worker.agents.research.state import Source
from threadline_worker.outbound import ForbiddenAddressError, GuardedBackend, GuardedTransport

MAX_BYTES = 5 * 1024 * 1024
MAX_REDIRECTS = 5
TOTAL_SECONDS = 20.0
_SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
}


class FetchError(Exception):
    """A page could not be read; the message is one sentence for a model."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was read: its source and its text."""

    source: Source
    text: str


def web_source(url: str, title: str) -> Source:
    """Give the source of a web page; the same address has the same id everywhere."""
    digest = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:8]
    return {"id": f"W{digest}", "title": " ".join(title.split()) or url, "location": url}


class Fetcher:
    """Fetches pages; ``backend`` decides which addresses may be reached, by default those of the public internet."""

    def __init__(
        self, backend: GuardedBackend | None = None, *, max_bytes: int = MAX_BYTES, total_seconds: float = TOTAL_SECONDS
    ) -> None:
        self._backend = backend or GuardedBackend()
        self._max_bytes, self._total_seconds = max_bytes, total_seconds

    async def fetch(self, url: str) -> Page:
        """Read ``url``: http or https, at most 5 redirects, 5 MiB and 20 seconds, HTML, plain text, Markdown or PDF.

        Raises:
            FetchError: refused, unreachable, too large, too slow, or without text; the message says which.

        """
        try:
            async with asyncio.timeout(self._total_seconds):
                final_url, suffix, content = await self._download(url)
                document = await asyncio.to_thread(parse_document, content, suffix, name=final_url)
        except TimeoutError as error:
            raise FetchError(f"{url} took longer than {self._total_seconds:g} seconds.") from error
        except UnreadableDocumentError as error:
            raise FetchError(f"{url} could not be read: {error}.") from error
        return Page(web_source(final_url, document.title), _text(document))

    async def _download(self, url: str) -> tuple[str, str, bytes]:
        transport = GuardedTransport(self._backend)
        headers = {"User-Agent": "threadline", "Accept-Encoding": "identity"}
        client = httpx.AsyncClient(
            transport=transport, follow_redirects=True, max_redirects=MAX_REDIRECTS, headers=headers, trust_env=False
        )
        try:
            async with client, client.stream("GET", _http(url)) as response:
                response.raise_for_status()
                return str(response.url), _suffix(response), await self._body(response)
        except ForbiddenAddressError as error:
            raise FetchError(f"{url} may not be fetched: {error}.") from error
        except httpx.TooManyRedirects as error:
            raise FetchError(f"{url} redirects more than {MAX_REDIRECTS} times.") from error
        except httpx.HTTPStatusError as error:
            raise FetchError(f"{url} answered {error.response.status_code}.") from error
        except httpx.UnsupportedProtocol as error:
            raise FetchError(f"{url} leads to an address that is not http or https.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"{url} could not be reached ({error or type(error).__name__}).") from error

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > self._max_bytes:
                raise FetchError(f"{response.url} is larger than {self._max_bytes} bytes.")
        return bytes(body)


def _http(url: str) -> httpx.URL:
    parsed = httpx.URL(url.strip())
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise FetchError(f"{url} is not a full http or https address.")
    return parsed


def _suffix(response: httpx.Response) -> str:
    kind = response.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
    if kind not in _SUFFIXES:
        raise FetchError(f"{response.url} is {kind}; only HTML, plain text, Markdown and PDF can be read.")
    return _SUFFIXES[kind]


def _text(document: Document) -> str:
    return "\n\n".join(f"[{part.where}]\n{part.text}" if part.where else part.text for part in document.parts)
