"""Seals data so that it can be read with the key, at its place and unchanged, or not at all.

AES-256-GCM from `cryptography`. Each sealing has a key of its own, HMAC-SHA256(key, salt), so that the number of
sealings under one configured key has no practical limit. Bytes: version (1), salt (16), nonce (12), ciphertext and tag.
As text `<key id>:<base64>`; as JSON `{"sealed": "<key id>:<base64>"}`; in bytea the id's length and the id come first.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from threadline.contract.codec import dumps, loads
from threadline.encryption.places import Place
from threadline.errors import CannotDecrypt, ConfigurationError, InvalidJob

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["PLAIN", "Vault", "key_id_of"]

_VERSION: Final = b"\x01"
_SALT: Final = 16
_NONCE: Final = 12
_TAG: Final = 16
_HEAD: Final = len(_VERSION) + _SALT + _NONCE
#: Nothing that people write by chance: an id, and base64 of at least an empty text that begins with the version.
_SEALED: Final = re.compile(r"([A-Za-z0-9._-]{1,32}):(A[Q-Za-f][A-Za-z0-9+/]{58,}={0,2})")


class Vault:
    """`keys` by id, the first one seals. Without keys everything passes as it is, and what is sealed is an error.

    With `reads_plaintext` (for the time of a migration) what was never sealed is read, too; it is never written.
    Raises ConfigurationError if keys are given and the package `cryptography` is not installed.
    """

    def __init__(self, keys: Mapping[str, bytes] | None = None, *, reads_plaintext: bool = False) -> None:
        self._keys = dict(keys or {})
        self.reads_plaintext = reads_plaintext or not self._keys
        self._cipher: type[AESGCM] | None = _cipher() if self._keys else None

    def __repr__(self) -> str:
        return f"Vault(key_ids={list(self._keys)}, reads_plaintext={self.reads_plaintext})"

    @property
    def on(self) -> bool:
        """Whether anything is sealed."""
        return bool(self._keys)

    # JSON:

    def seal(self, value: Any, place: Place) -> Any:
        """A JSON value as it is to be stored. Raises InvalidJob where sealed and plain could be mistaken."""
        if not self.on:
            return _unmistakable(value)
        return {"sealed": self.seal_text(dumps(value), place)}

    def open(self, value: Any, place: Place) -> Any:
        """A JSON value as it was before it was sealed; None stays None. Raises CannotDecrypt."""
        if value is None:
            return None
        sealed = _sealed_in(value)
        if sealed is None:
            return self._plain(value, place)
        return loads(self._opened_text(sealed, place))

    # Text and bytes:

    def seal_text(self, plain: bytes, place: Place) -> str:
        """Bytes as `<key id>:<base64>`; only with keys."""
        key_id = self.key_id
        return f"{key_id}:{base64.b64encode(self._seal(key_id, plain, place)).decode()}"

    def seal_words(self, words: str | None, place: Place) -> str | None:
        """Text for a text column."""
        return self.seal_text(words.encode(), place) if self.on and words is not None else words

    def open_words(self, words: str | None, place: Place, *, or_plain: bool = False) -> str | None:
        """Text from a text column; `or_plain`: also what the ledger's own statements wrote. Raises CannotDecrypt."""
        if words is None:
            return None
        sealed = _SEALED.fullmatch(words)
        if sealed is None:
            return words if or_plain else str(self._plain(words, place))
        return self._opened_text(sealed, place).decode()

    def seal_bytes(self, plain: bytes, place: Place) -> bytes:
        """Bytes for a bytea column."""
        if not self.on:
            return plain
        key_id = self.key_id
        return bytes([len(key_id)]) + key_id.encode() + self._seal(key_id, plain, place)

    def open_bytes(self, sealed: bytes, place: Place) -> bytes:
        """Bytes that `seal_bytes` sealed. Raises CannotDecrypt."""
        key_id = sealed[1 : 1 + sealed[0]].decode("ascii", "replace") if sealed else ""
        return self._open(key_id, sealed[1 + len(key_id) :], place)

    def refuse_plain(self, place: Place) -> None:
        """Raises CannotDecrypt, unless plaintext may be read."""
        self._plain(None, place)

    # What equal requests are known by:

    def fingerprints(self, digest: str) -> list[str]:
        """A request's digest as it is stored (the first) and as an earlier key or setting may have stored it.

        With keys it is an HMAC: the digest of a short input could be guessed.
        """
        keyed = [
            f"{key_id}:{hmac.digest(key, b'threadline fingerprint 1' + digest.encode(), 'sha256').hex()}"
            for key_id, key in self._keys.items()
        ]
        return [*keyed, digest] if self.reads_plaintext else keyed

    @property
    def key_id(self) -> str:
        """The id of the key that seals."""
        return next(iter(self._keys))

    def _seal(self, key_id: str, plain: bytes, place: Place) -> bytes:
        salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
        return _VERSION + salt + nonce + self._one_time(key_id, salt).encrypt(nonce, plain, _bound(key_id, place))

    def _open(self, key_id: str, sealed: bytes, place: Place) -> bytes:
        if key_id not in self._keys:
            raise CannotDecrypt(
                f"{_shown(place)} is sealed with the key {_shown_id(key_id)}, which this process does not have: add it"
                " to THREADLINE_ENCRYPTION_KEYS",
                reason="unknown_key",
            )
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only with keys is it there

        salt, nonce = sealed[1 : 1 + _SALT], sealed[1 + _SALT : _HEAD]
        if len(sealed) < _HEAD + _TAG or sealed[:1] != _VERSION:
            raise _changed(place, key_id)
        try:
            return self._one_time(key_id, salt).decrypt(nonce, sealed[_HEAD:], _bound(key_id, place))
        except InvalidTag:
            raise _changed(place, key_id) from None

    def _one_time(self, key_id: str, salt: bytes) -> AESGCM:
        assert self._cipher is not None  # noqa: S101 - there are keys
        return self._cipher(hmac.digest(self._keys[key_id], b"threadline sealed 1" + salt, "sha256"))

    def _opened_text(self, sealed: re.Match[str], place: Place) -> bytes:
        try:
            raw = base64.b64decode(sealed[2], validate=True)
        except ValueError:
            raise _changed(place, sealed[1]) from None
        return self._open(sealed[1], raw, place)

    def _plain(self, value: Any, place: Place) -> Any:
        if not self.reads_plaintext:
            raise CannotDecrypt(
                f"{_shown(place)} is plaintext, which is refused while THREADLINE_ENCRYPTION_KEYS is set: see the"
                " migration in docs/encryption.md",
                reason="plaintext",
            )
        return value


def key_id_of(value: Any) -> str | None:
    """The key that a JSON value, or a text, is sealed with; None: it is not sealed."""
    sealed = _SEALED.fullmatch(value) if isinstance(value, str) else _sealed_in(value)
    return None if sealed is None else sealed[1]


def _sealed_in(value: Any) -> re.Match[str] | None:
    if isinstance(value, dict) and len(value) == 1 and isinstance(text := value.get("sealed"), str):
        return _SEALED.fullmatch(text)
    return None


def _unmistakable(value: Any) -> Any:
    """Without keys: nobody can store a value that readers would take for a sealed one."""
    if _sealed_in(value) is not None:
        raise InvalidJob('an object whose only field is "sealed" with a key id and base64 is what encryption writes')
    return value


def _bound(key_id: str, place: Place) -> bytes:
    return dumps(["threadline", 1, key_id, *place])


def _shown(place: Place) -> str:
    """The table (or what Redis holds) and column, and the id that comes first: ids are no secret, keys of items are."""
    return f"{place[0]}.{place[1]}" + (f" of {place[2][:80]}" if place[0] != "store" else "")


def _shown_id(key_id: str) -> str:
    return repr(key_id[:32])


def _changed(place: Place, key_id: str) -> CannotDecrypt:
    return CannotDecrypt(
        f"{_shown(place)} does not open with the key {_shown_id(key_id)}: it was changed, moved from another place, or"
        " sealed with another key of that id",
        reason="changed",
    )


def _cipher() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "THREADLINE_ENCRYPTION_KEYS needs the package cryptography: pip install 'threadline[encryption]'"
        ) from error
    return AESGCM


#: No keys: everything passes.
PLAIN: Final = Vault()
