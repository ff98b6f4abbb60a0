"""What a worker and `threadline memory` read about memory from the environment, checked once."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from threadline.environment import number
from threadline.errors import ConfigurationError
from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import Route, routes_from_env

__all__ = ["MemorySettings"]

#: A hundred years: more overflows Postgres' timestamps.
_MOST_MINUTES = 52_560_000
#: What pgvector can hold without an approximate index.
_MOST_DIMS = 16_000


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`embeddings` is empty for no semantic search, `dims` None for the model's own, `ttl_minutes` None for ever."""

    routes: tuple[Route, ...] = ()
    names: UserNames = UserNames()
    embeddings: str = ""
    dims: int | None = None
    ttl_minutes: int | None = None
    ttl_refresh: bool = False
    sweep_seconds: float = 300.0

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> MemorySettings:
        """Read THREADLINE_MEMORY_…, THREADLINE_STORE_…, THREADLINE_USER_HASH_KEYS. Raises ConfigurationError."""
        embeddings = env.get("THREADLINE_STORE_EMBEDDINGS", "").strip()
        if embeddings and embeddings != "offline" and not all(part.strip() for part in embeddings.partition(":")):
            raise ConfigurationError(
                f"THREADLINE_STORE_EMBEDDINGS={embeddings!r}: use provider:model, such as"
                " openai:text-embedding-3-small, or offline"
            )
        return cls(
            routes=routes_from_env(env),
            names=UserNames.from_env(env),
            embeddings=embeddings,
            dims=_whole(env, "THREADLINE_STORE_EMBEDDING_DIMS", _MOST_DIMS),
            ttl_minutes=_whole(env, "THREADLINE_STORE_TTL_MINUTES", _MOST_MINUTES),
            ttl_refresh=_flag(env, "THREADLINE_STORE_TTL_REFRESH"),
            sweep_seconds=number(env, "THREADLINE_STORE_SWEEP_SECONDS", 300.0),
        )


def _whole(env: Mapping[str, str], name: str, most: int) -> int | None:
    if not env.get(name, "").strip():
        return None
    value = number(env, name, 1, least=1, most=most)
    if value != int(value):
        raise ConfigurationError(f"{name}={env[name]!r}: give a whole number")
    return int(value)


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value not in ("", "0", "1", "true", "false", "yes", "no", "on", "off"):
        raise ConfigurationError(f"{name}={value!r}: use 1 or 0")
    return value in ("1", "true", "yes", "on")
