"""Connections for checkpoints and store: whatever stands before Postgres, their statements find the right schema.

A connection of our own is told its schema and its limits when it is made. Behind a transaction pooler nothing that is
set stays with its client: the role brings the schema along, which is checked here, and the pooler sets the limits.
"""

from __future__ import annotations

from typing import Any

from threadline.contract.keys import Keys
from threadline.errors import ConfigurationError
from threadline.ledger.database import Database
from threadline_worker.settings import WorkerSettings

__all__ = ["check_schema", "checkpoint_database"]


def checkpoint_database(settings: WorkerSettings, keys: Keys, application_name: str) -> Database:
    """A pool of up to `max(4, concurrency)` connections that opens on first use."""
    own: dict[str, Any] = {
        "transaction_timeout": settings.transaction_timeout,
        "options": f"-c search_path={keys.search_path.replace(' ', '')}",
    }
    return Database(
        settings.database_url,
        application_name=application_name,
        max_size=max(4, settings.concurrency),
        **(settings.client.statements if settings.client.pooled else own),
    )


async def check_schema(database: Database, keys: Keys) -> None:
    """Behind a pooler. Raises ConfigurationError if statements would look elsewhere, BackendUnavailable."""
    row = await database.row("SELECT current_schemas(false)::text[] AS searched, current_user AS role")
    wanted = [name for name in keys.search_path.split(", ") if name != "public"]
    if row is None or row["searched"][: len(wanted)] != wanted:
        role = str(row["role"] if row else "").replace('"', '""')
        raise ConfigurationError(
            f'behind a transaction pooler the role brings the schema: run ALTER ROLE "{role}" SET search_path ='
            f" {keys.search_path} and RECONNECT the pooler (docs/operations.md)"
        )
