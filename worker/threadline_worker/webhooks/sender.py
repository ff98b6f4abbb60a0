"""Sends one request to an allowed address within fixed limits; whatever the receiver does, there is an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import cast

import httpx

from threadline.errors import ConfigurationError
from threadline_worker.outbound import (
    ForbiddenAddressError,
    GuardedBackend,
    GuardedTransport,
    Resolver,
    is_public,
    resolve,
)
from threadline_worker.webhooks.settings import Allowance

__all__ = ["Answered", "Refused", "Sender", "Sent", "Unanswered"]

#: For all of it: name, connection, request, answer. Standard Webhooks says 15 to 30 s.
TOTAL_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
#: What of an answer's body is waited for, and kept.
_BODY_SECONDS = 2.0
_BODY_BYTES = 65_536
_KEPT_CHARACTERS = 200
_IDLE_SECONDS = 15.0


@dataclass(frozen=True)
class Answered:
    """The receiver answered; `text` is the beginning of what it said, `retry_after` its header of that name."""

    status: int
    text: str = ""
    retry_after: str | None = None


@dataclass(frozen=True)
class Unanswered:
    """No answer came; a later try may have one."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """It may not be sent, now or later, unless the configuration changes."""

    reason: str


Sent = Answered | Unanswered | Refused


class Sender:
    """Posts without following redirects, without cookies, proxies of the environment, or credentials.

    https:// goes to the public internet and to what `allow` names, http:// only to the latter. SSL_CERT_FILE and
    SSL_CERT_DIR name other authorities to trust, as everywhere. `connections` is how many it has at once.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        allow: Allowance,
        *,
        connections: int = 16,
        total_seconds: float = TOTAL_SECONDS,
        resolver: Resolver = resolve,
    ) -> None:
        self._allow = allow
        self._total_seconds = total_seconds
        trusted = _trusted()

        def transport(backend: GuardedBackend) -> GuardedTransport:
            return GuardedTransport(backend, ssl_context=trusted, connections=connections, idle_seconds=_IDLE_SECONDS)

        self._by_name = transport(GuardedBackend(resolver, lambda _address: True))
        self._secure = transport(GuardedBackend(resolver, lambda a: is_public(a) or allow.holds(a)))
        self._plain = transport(GuardedBackend(resolver, allow.holds))

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._by_name, self._secure, self._plain):
            await transport.aclose()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Sent:
        """Raises nothing for what the address, the network or the receiver does."""
        timeout = httpx.Timeout(self._total_seconds, connect=_CONNECT_SECONDS)
        try:
            request = httpx.Request(
                "POST", url, headers=headers, content=body, extensions={"timeout": timeout.as_dict()}
            )
        except (httpx.InvalidURL, UnicodeError, TypeError, ValueError):
            return Refused("the URL cannot be used: it names no host that could exist")
        return await self._exchange(request)

    async def _exchange(self, request: httpx.Request) -> Sent:
        outcome: Sent = Unanswered(f"no answer within {self._total_seconds:g} s")
        try:
            async with asyncio.timeout(self._total_seconds):
                response = await self._transport(request.url).handle_async_request(request)
                outcome = Answered(response.status_code, "", response.headers.get("retry-after"))
                try:
                    text = await _beginning(response)
                    outcome = Answered(outcome.status, text, outcome.retry_after)
                finally:
                    await response.aclose()
        except ForbiddenAddressError:
            return Refused(_why_refused(request.url))
        except TimeoutError:
            return outcome  # the status counts, even if the rest of the answer never came
        except (httpx.HTTPError, OSError) as error:
            return outcome if isinstance(outcome, Answered) else Unanswered(_said(error))
        return outcome

    def _transport(self, url: httpx.URL) -> GuardedTransport:
        if self._allow.names(url.raw_host.decode()):  # as it is sent (xn--…), and as it is allowed
            return self._by_name
        return self._secure if url.scheme == "https" else self._plain


def _trusted() -> ssl.SSLContext:
    """Whom to trust. Raises ConfigurationError where the environment names a file that is none."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"SSL_CERT_FILE or SSL_CERT_DIR names no certificates that could be read ({error.strerror or error}):"
            " correct it, or unset it"
        ) from error


async def _beginning(response: httpx.Response) -> str:
    """The first characters of the body. A body that goes on or stands still is left."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, httpx.HTTPError, OSError):
        raw = cast("AsyncGenerator[bytes, None]", response.aiter_raw())  # httpx does not say that it can be closed
        async with asyncio.timeout(_BODY_SECONDS), contextlib.aclosing(raw) as pieces:
            async for piece in pieces:
                body += piece[: _BODY_BYTES - len(body)]
                if len(body) >= _BODY_BYTES:
                    break
    return _shown(body[: 4 * _KEPT_CHARACTERS].decode("utf-8", "replace"))


def _why_refused(url: httpx.URL) -> str:
    if url.scheme == "http":
        return "http:// goes to allowed hosts only: use https://, or allow the host with THREADLINE_WEBHOOK_ALLOW"
    return "the host leads to a private address: allow it with THREADLINE_WEBHOOK_ALLOW"


def _said(error: BaseException) -> str:
    return _shown(f"{type(error).__name__}: {error}").rstrip(": ")


def _shown(text: str) -> str:
    """What others said, as the ledger's text can hold it (no NUL) and a terminal can show it (no controls)."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_KEPT_CHARACTERS]
