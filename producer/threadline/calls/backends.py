"""The two servers of a client: connected on first use, and a call that lacks one says which variable to set."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from redis.asyncio import Redis

from threadline.contract.keys import Keys
from threadline.contract.queues import as_queue_map
from threadline.errors import BackendUnavailable, ConfigurationError, NeedsDatabase
from threadline.ledger.database import Database
from threadline.ledger.ledger import Ledger
from threadline.ledger.sql import Queries
from threadline.log.append import EventLog
from threadline.metrics import JobsEnqueued
from threadline.redis_client import connect_redis
from threadline.settings import ClientSettings

__all__ = ["Backends", "named"]


class Backends:
    """`redis` and `log` are None without a redis_url, `database` and `ledger` without a database_url.

    `enqueued` counts the jobs that are made here, where somebody wants to know. Raises ConfigurationError when neither
    server is named or a URL cannot be read.
    """

    enqueued: JobsEnqueued | None = None

    def __init__(self, settings: ClientSettings) -> None:
        if not (settings.redis_url or settings.database_url):
            raise ConfigurationError("set REDIS_URL and DATABASE_URL (or run `threadline dev`, which prints them)")
        self.settings = settings
        self.keys: Keys = settings.keys
        self.redis: Redis | None = None
        self.log: EventLog | None = None
        if settings.redis_url:
            self.redis = connect_redis(settings.redis_url)
            self.log = EventLog(
                self.redis,
                self.keys,
                max_events=settings.event_max,
                ttl_seconds=settings.event_ttl_seconds,
                vault=settings.vault,
            )
        self.database: Database | None = None
        self.ledger: Ledger | None = None
        if settings.database_url:
            self.database = Database(settings.database_url, application_name="threadline-client", **settings.statements)
            self.ledger = Ledger(
                self.database,
                Queries(self.keys.schema, self.keys.checkpoints),
                lease_seconds=settings.lease_seconds,
                vault=settings.vault,
            )

    def need_ledger(self, call: str) -> Ledger:
        """The ledger; NeedsDatabase that names the call without one."""
        if self.ledger is None:
            raise NeedsDatabase(f"{call} reads the ledger: set DATABASE_URL or give the client a database_url")
        return self.ledger

    def need_redis(self, what: str) -> Redis:
        """Redis; BackendUnavailable that names what comes through it without one."""
        if self.redis is None:
            raise BackendUnavailable(f"{what} come through Redis: set REDIS_URL or give the client a redis_url")
        return self.redis

    def count_enqueued(self, agent: str) -> None:
        """A job of this agent was made."""
        if self.enqueued is not None:
            self.enqueued.count(agent)

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        try:
            if self.database is not None:
                await self.database.close()
        finally:
            if self.redis is not None:
                await self.redis.aclose()


def named(
    settings: ClientSettings | None,
    redis_url: str | None,
    database_url: str | None,
    queues: Mapping[str, str] | None = None,
) -> ClientSettings:
    """The settings with the servers and the map of queues that the caller named."""
    settings = settings or ClientSettings()
    return msgspec.structs.replace(
        settings,
        redis_url=redis_url or settings.redis_url,
        database_url=database_url or settings.database_url,
        queues=settings.queues if queues is None else as_queue_map(queues),
    )
