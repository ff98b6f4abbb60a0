"""Encryption as the environment asks for it: refused at the start rather than half on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from threadline.encryption.keyring import parse_encryption_keys
from threadline.encryption.vault import PLAIN, Vault
from threadline.errors import ConfigurationError

__all__ = ["vault_from_env"]

_PLAINTEXT: Final = {"": False, "refuse": False, "read": True}


def vault_from_env(env: Mapping[str, str]) -> Vault:
    """The vault of these variables. Raises ConfigurationError that names the variable."""
    keys = parse_encryption_keys(env.get("THREADLINE_ENCRYPTION_KEYS", ""))
    said = env.get("THREADLINE_ENCRYPTION_PLAINTEXT", "").strip().lower()
    if said not in _PLAINTEXT:
        raise ConfigurationError(f"THREADLINE_ENCRYPTION_PLAINTEXT={said!r}: use read (for a migration) or refuse")
    return Vault(keys, reads_plaintext=_PLAINTEXT[said]) if keys else PLAIN
