"""A webhook's URL is refused at enqueue if no worker could ever send to it; whom they may reach, the workers know."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from threadline.errors import InvalidJob

__all__ = ["check_webhook_url"]

_MAX_CHARACTERS: Final = 2000
#: What may stand in a URL as it travels (RFC 3986). Above all no quote and no backslash: the ledger's trigger reads the
#: URL out of the options by pattern.
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")


def check_webhook_url(value: Any) -> str:
    """Return the URL; InvalidJob unless it is a full http or https URL of 1-2000 ASCII characters without credentials.

    The message never shows the URL: its query may hold a secret.
    """
    if not isinstance(value, str):
        raise InvalidJob(f"webhook_url is a {type(value).__name__}: give a str, for example https://example.com/hooks")
    if len(value) > _MAX_CHARACTERS:
        raise InvalidJob(f"webhook_url has {len(value):,} characters: at most {_MAX_CHARACTERS:,} are allowed")
    if value and not _URL.fullmatch(value):
        raise InvalidJob("webhook_url has characters that no URL has: write them as %XX, and the host as xn--…")
    _check_parts(_split(value))
    return value


def _check_parts(parts: SplitResult) -> None:
    if parts.scheme not in {"http", "https"}:
        raise InvalidJob("webhook_url: give a full URL that begins with https:// (http:// only to allowed hosts)")
    if "@" in parts.netloc:
        raise InvalidJob("webhook_url holds a user or password: leave them out, the signature tells who calls")
    if not _HOST.fullmatch(parts.hostname or ""):
        raise InvalidJob("webhook_url names no host: give a full URL, for example https://example.com/hooks")
    if parts.fragment:
        raise InvalidJob("webhook_url has a #fragment, which is never sent: leave it out")


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:  # a port above 65535, brackets that do not match
        raise InvalidJob("webhook_url: its host or port cannot be read; it is like https://a.example:8443") from error
    return parts
