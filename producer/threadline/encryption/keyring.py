"""The keys of THREADLINE_ENCRYPTION_KEYS: checked once, never shown, in no error and no repr."""

from __future__ import annotations

import base64
import re
from typing import Final

from threadline.errors import ConfigurationError

__all__ = ["parse_encryption_keys"]

_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_KEY_BYTES: Final = 32


def parse_encryption_keys(text: str) -> dict[str, bytes]:
    """Read `id:base64key,…`; the first key seals, all open. Raises ConfigurationError, which never shows a key."""
    keys: dict[str, bytes] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key_id, _colon, encoded = part.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:  # binascii.Error is one, and so is what it says of non-ASCII text
            key = b""
        if not _KEY_ID.fullmatch(key_id) or len(key) != _KEY_BYTES:
            raise ConfigurationError(
                "THREADLINE_ENCRYPTION_KEYS: each entry is id:base64key with an id of 1-32 letters, digits and . _ -"
                " and a key of 32 bytes, for example from `openssl rand -base64 32`"
            )
        if key_id in keys:
            raise ConfigurationError(
                f"THREADLINE_ENCRYPTION_KEYS: the id {key_id} is there twice: give each key its own"
            )
        keys[key_id] = key
    if text.strip() and not keys:
        raise ConfigurationError("THREADLINE_ENCRYPTION_KEYS has no key in it: give id:base64key, or unset it")
    return keys
