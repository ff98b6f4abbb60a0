"""Brings everything that stands under earlier names of users to today's names, also what no run would look for."""

from __future__ import annotations

from threadline.errors import ConfigurationError
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.settings import ClientSettings
from threadline_worker.memory.moves import Moves
from threadline_worker.memory.names import UserNames
from threadline_worker.memory_store import MemoryStore, StoreConfig

__all__ = ["rekey_users"]


async def rekey_users(
    database: Database, client: ClientSettings, names: UserNames, user_id: str | None, *, dry_run: bool
) -> list[tuple[str, str]]:
    """Move all namespaces whose second label is an earlier name of the user, or of any user that has a thread.

    Returns them, old and new. Raises ConfigurationError without keys, BackendUnavailable.
    """
    if not names.keys:
        raise ConfigurationError("THREADLINE_USER_HASH_KEYS is not set: there are no earlier names")
    queries = Queries(client.keys.schema)
    users = [user_id] if user_id is not None else await _users(database, queries)
    today = {old: names.name(user) for user in users for old in names.earlier(user)}
    rows = await database.rows(queries.fill("SELECT DISTINCT prefix FROM {schema}.store ORDER BY prefix"))
    pairs = tuple(
        (row["prefix"], renamed) for row in rows if (renamed := _renamed(row["prefix"], today)) != row["prefix"]
    )
    if pairs and not dry_run:
        store = MemoryStore(database.pool, StoreConfig(vault=client.vault))
        try:
            await store.move(Moves(pairs), queries)
        finally:
            store.stop()
    return list(pairs)


async def _users(database: Database, queries: Queries) -> list[str]:
    rows = await database.rows(queries.fill("SELECT DISTINCT user_id FROM {schema}.threads"))
    return [row["user_id"] for row in rows]


def _renamed(prefix: str, today: dict[str, str]) -> str:
    first, *others = prefix.split(".")
    if others:
        others[0] = today.get(others[0], others[0])
    return ".".join([first, *others])
