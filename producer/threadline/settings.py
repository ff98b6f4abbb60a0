"""What a producer reads from the environment; every value is checked once, and no password is ever shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from threadline.contract.keys import Keys
from threadline.contract.queues import QueueMap, parse_queue_map
from threadline.contract.signature import parse_keys
from threadline.contract.user_names import UserNames
from threadline.encryption.settings import vault_from_env
from threadline.encryption.vault import PLAIN, Vault
from threadline.environment import number
from threadline.errors import ConfigurationError

__all__ = ["ClientSettings"]


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`redis_url` and `database_url` are None when unset; `lease_seconds` says when a silent worker is not counted.

    `queues` says where jobs wait. `pooled`: a transaction pooler stands before `database_url`; `database_direct_url`
    goes past it, for what needs a session of its own.
    """

    redis_url: str | None = None
    database_url: str | None = None
    database_direct_url: str | None = None
    pooled: bool = False
    keys: Keys = Keys()
    enqueue_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    vault: Vault = PLAIN
    lease_seconds: float = 15.0
    event_ttl_seconds: int = 86_400
    event_max: int = 10_000
    user_names: UserNames = UserNames()
    queues: QueueMap = QueueMap()

    @property
    def direct_url(self) -> str | None:
        """Postgres itself: for advisory locks, LISTEN and migrations. Raises ConfigurationError if it is not named."""
        if self.pooled and not self.database_direct_url:
            raise ConfigurationError(
                "THREADLINE_DATABASE_POOLER=transaction: set THREADLINE_DATABASE_DIRECT_URL, too; a worker's heartbeat"
                " and locks, and migrations, need sessions of their own"
            )
        return self.database_direct_url or self.database_url

    @property
    def statements(self) -> dict[str, Any]:
        """How psycopg shall speak to `database_url`: a transaction pooler knows no prepared statements of ours."""
        return {"prepare_threshold": None} if self.pooled else {}

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> ClientSettings:
        """Read the environment. Raises ConfigurationError that names the variable."""
        return cls(
            redis_url=env.get("REDIS_URL") or None,
            database_url=env.get("DATABASE_URL") or None,
            database_direct_url=env.get("THREADLINE_DATABASE_DIRECT_URL") or None,
            pooled=_pooled(env),
            keys=Keys(env.get("THREADLINE_NAMESPACE") or "threadline", env.get("THREADLINE_CHECKPOINT_SCHEMA") or None),
            enqueue_keys=parse_keys(env.get("THREADLINE_ENQUEUE_KEYS", "")),
            vault=vault_from_env(env),
            lease_seconds=number(env, "THREADLINE_LEASE_SECONDS", 15.0),
            event_ttl_seconds=int(number(env, "THREADLINE_EVENT_TTL_SECONDS", 86_400, least=1)),
            event_max=int(number(env, "THREADLINE_EVENT_MAX", 10_000, least=1)),
            user_names=UserNames.from_env(env),
            queues=parse_queue_map(env.get("THREADLINE_QUEUES", "")),
        )


def _pooled(env: Mapping[str, str]) -> bool:
    """A direct URL is needed behind a transaction pooler only; a producer, which needs none, says that there is one."""
    said = env.get("THREADLINE_DATABASE_POOLER", "").strip().lower()
    if said not in {"", "transaction"}:
        raise ConfigurationError(
            f"THREADLINE_DATABASE_POOLER={said!r}: say transaction, or leave it unset (session poolers need nothing)"
        )
    return bool(said or env.get("THREADLINE_DATABASE_DIRECT_URL"))
