"""One worker at a time makes a round of retention, held by a lock in Postgres that dies with its session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from threadline.calls.erase import finish_deletion
from threadline.calls.prune import Pruned, Pruning
from threadline.contract.keys import Keys
from threadline.contract.user_names import UserNames
from threadline.errors import ThreadlineError
from threadline.ledger.database import Database
from threadline.ledger.internal import InternalJobs
from threadline.ledger.ledger import Ledger
from threadline.ledger.migrate import lock_key
from threadline.ledger.retention import Retention
from threadline.redis_client import reason
from threadline_worker.retention.settings import RetentionSettings
from threadline_worker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["Schedule", "schedule_of"]

log = structlog.get_logger(__name__)

#: An erasure that nobody has touched for so long: its process died, or Redis was away.
LEFT_ALONE_SECONDS: Final = 10.0
#: Each compaction takes a slot that a user's job could have.
_AT_ONCE: Final = 2
#: Threads and erasures to look at are cheap to ask for: at least so often.
_SOON_SECONDS: Final = 30.0


class Schedule:
    """`run()` until it is cancelled; `round()` is one look. `direct` makes connections outside a transaction pooler."""

    def __init__(
        self,
        ledger: Ledger,
        redis: Any,
        direct: Database,
        settings: RetentionSettings,
        *,
        keys: Keys,
        names: UserNames,
        metrics: Metrics,
    ) -> None:
        self._ledger = ledger
        self._redis = redis
        self._keys = keys
        self._direct = direct
        self._settings = settings
        self._metrics = metrics
        self._names = names
        self._lock = lock_key(f"{keys.schema}:retention")
        self._due = 0.0

    async def run(self) -> None:
        """Look again and again until cancelled: for deletions often, for what is old as often as the settings say."""
        interval = min(self._settings.interval, _SOON_SECONDS)
        while True:
            try:
                await self.round()
            except (psycopg.Error, ThreadlineError, TimeoutError, OSError) as error:
                log.warning("retention.failed", error=reason(error))
            await asyncio.sleep(interval * random.uniform(0.9, 1.1))  # noqa: S311 - spreads workers

    async def round(self) -> Pruned | None:
        """What went; None if another worker is at it. Raises ThreadlineError, psycopg.Error."""
        async with self._alone() as alone:
            if not alone:
                return None
            await self._finish_deletions()
            loop = asyncio.get_running_loop()
            if loop.time() < self._due:
                return Pruned()
            self._due = loop.time() + self._settings.interval
            await InternalJobs(self._ledger).prune()
            pruned = await Pruning(self._ledger, self._redis, self._keys, at_once=_AT_ONCE).prune(self._settings.ages)
        self._note(pruned)
        return pruned

    async def _finish_deletions(self) -> None:
        for user_id in await Retention(self._ledger).left_alone(LEFT_ALONE_SECONDS):
            done = await finish_deletion(self._ledger, self._redis, self._keys, user_id, self._names)
            log.info("retention.user_deleted", finished=done.finished, waiting_for=done.waiting_for)

    def _note(self, pruned: Pruned) -> None:
        rows = {"jobs": pruned.jobs, "threads": pruned.threads, "dead_letters": pruned.dead_letters, **pruned.rows}
        for table, count in rows.items():
            self._metrics.retention_rows.labels(table=table).inc(count)
        if any(rows.values()) or pruned.compacted or pruned.failed:
            counts = {"compacted": pruned.compacted, "skipped": pruned.skipped, "failed": pruned.failed}
            log.info("retention.pruned", **rows, **counts, reasons=pruned.reasons or None)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[bool]:
        connection = await self._direct.connect()
        try:
            found = await connection.execute("SELECT pg_try_advisory_lock(%s) AS taken", (self._lock,))
            row = await found.fetchone()
            yield bool(row and row["taken"])
        finally:
            # Not close(): after an outage it could wait for an answer.
            connection.pgconn.finish()


def schedule_of(services: Services) -> Schedule:
    """The schedule of a worker."""
    settings = services.settings
    direct = Database(settings.direct_url, application_name=services.liveness.application_name)
    return Schedule(
        services.ledger,
        services.redis,
        direct,
        settings.retention,
        keys=services.keys,
        names=settings.client.user_names,
        metrics=services.metrics,
    )
