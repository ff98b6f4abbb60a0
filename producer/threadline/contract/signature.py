"""Who may enqueue through Redis alone: HMAC-SHA256 over the job's canonical JSON, compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from threadline.contract.codec import canonical
from threadline.errors import ConfigurationError, InvalidJob

__all__ = ["parse_keys", "sign", "verify"]


def parse_keys(text: str) -> dict[str, bytes]:
    """Read `id:base64key,…`; the first key signs, all verify. Raises ConfigurationError (which never shows a key)."""
    keys: dict[str, bytes] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key_id, colon, encoded = part.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:  # binascii.Error is one, and so is what it says of non-ASCII text
            key = b""
        if not (colon and key_id) or len(key) < 16:  # noqa: PLR2004 - 128 bits, HMAC's least sensible key
            raise ConfigurationError(
                "THREADLINE_ENQUEUE_KEYS: each entry is id:base64key with a key of 16 bytes or more, for example from"
                " `openssl rand -base64 32`"
            )
        keys[key_id] = key
    return keys


def sign(job: Mapping[str, Any], keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The job with `sig` of the first key; unchanged without keys."""
    if not keys:
        return dict(job)
    key_id, key = next(iter(keys.items()))
    return {**job, "sig": {"id": key_id, "mac": _mac(job, key)}}


def verify(job: Mapping[str, Any], keys: Mapping[str, bytes]) -> None:
    """Return if the signature holds or none is asked for. Raises InvalidJob."""
    if not keys:
        return
    sig = job.get("sig")
    key = keys.get(str(sig.get("id"))) if isinstance(sig, dict) else None
    if not isinstance(sig, dict) or key is None:
        raise InvalidJob("the message is not signed with a known key (THREADLINE_ENQUEUE_KEYS)")
    if not hmac.compare_digest(_mac(job, key).encode(), str(sig.get("mac")).encode()):
        raise InvalidJob("the message's signature does not match its content")


def _mac(job: Mapping[str, Any], key: bytes) -> str:
    unsigned = {name: value for name, value in job.items() if name != "sig"}
    return hmac.new(key, canonical(unsigned), hashlib.sha256).hexdigest()
