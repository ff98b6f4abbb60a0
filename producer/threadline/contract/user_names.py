"""Names a user in the store by a keyed hash: any string is a user id, and no two users ever share a name.

A store's namespaces refuse `.` and the empty string, and a dump of the store should not list who the users are. Without
a key the name is what 0.1.0 used. With keys, the first one names; all others, and the name of 0.1.0, are earlier names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from threadline.errors import ConfigurationError

__all__ = ["UserNames"]

_VARIABLE = "THREADLINE_USER_HASH_KEYS"
_LEAST_BYTES = 16
_LENGTH = 32
#: No user id: NUL is refused in them.
_NOBODY = "\0threadline"


@dataclass(frozen=True)
class UserNames:
    """`keys`, newest first; none is the default, an unkeyed SHA-256."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> UserNames:
        """Read THREADLINE_USER_HASH_KEYS. Raises ConfigurationError, which never shows a key."""
        keys = []
        for encoded in filter(None, (piece.strip() for piece in env.get(_VARIABLE, "").split(","))):
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:  # binascii.Error is one, and so is what it says of non-ASCII text
                key = b""
            if len(key) < _LEAST_BYTES:
                raise ConfigurationError(
                    f"{_VARIABLE}: give keys of {_LEAST_BYTES} bytes or more in base64, the newest first, for example"
                    " from `openssl rand -base64 32`"
                )
            keys.append(key)
        return cls(tuple(keys))

    def name(self, user_id: str) -> str:
        """What the user is called now: 32 hexadecimal digits."""
        return _keyed(self.keys[0], user_id) if self.keys else _unkeyed(user_id)

    def earlier(self, user_id: str) -> tuple[str, ...]:
        """What the user may have been called before; empty without keys."""
        if not self.keys:
            return ()
        return (*(_keyed(key, user_id) for key in self.keys[1:]), _unkeyed(user_id))

    def all(self, user_id: str) -> tuple[str, ...]:
        """Every name under which something of the user may be in the store, today's first."""
        return (self.name(user_id), *self.earlier(user_id))

    @property
    def mark(self) -> str:
        """What nobody is called: equal where users are called the same. It tells nothing of the key."""
        return self.name(_NOBODY)

    def knows(self, mark: str) -> bool:
        """Whether `all` has what a process with this mark calls its users."""
        return mark in self.all(_NOBODY)


def _unkeyed(user_id: str) -> str:
    return hashlib.sha256(_bytes(user_id)).hexdigest()[:_LENGTH]


def _keyed(key: bytes, user_id: str) -> str:
    return hmac.new(key, _bytes(user_id), hashlib.sha256).hexdigest()[:_LENGTH]


def _bytes(user_id: str) -> bytes:
    # Not normalised: ids that only look alike are different users.
    return user_id.encode("utf-8", "surrogatepass")
