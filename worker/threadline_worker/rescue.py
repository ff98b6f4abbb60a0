"""Gives a dead worker's jobs back to the queue; a worker that lives is never robbed by an outage or a clock.

Who is dead is a guess from what this rescuer saw itself in one unbroken session (V2, V3); the rescue itself is one
transaction that changes nothing if the worker has beaten since.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.ledger.sql import Queries

__all__ = ["STALL_LIMIT", "Rescuer"]

log = structlog.get_logger(__name__)

#: L7: rescues without a new checkpoint in between, after which a job is taken for poison.
STALL_LIMIT = 3


class _Seen(NamedTuple):
    beat: int
    since: float


class Rescuer:
    """`begin()` for each new session, then `look()` once a second on it. `clock` is monotonic seconds."""

    def __init__(
        self,
        queries: Queries,
        worker_id: str,
        *,
        heartbeat: float,
        lease: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queries = queries
        self._worker_id = worker_id
        self._heartbeat = heartbeat
        self._lease = lease
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        #: How many workers besides this one serve all that it serves: what one of them does, it need not do.
        self.others = 0
        self._session_since = self._looked = clock()

    def begin(self) -> None:
        """A new session knows nothing: a database outage, a failover or a clock jump must kill nobody (V3)."""
        self._seen.clear()
        self._session_since = self._looked = self._clock()

    async def look(self, connection: AsyncConnection[DictRow]) -> list[DictRow]:
        """Rescue what dead workers left; the jobs' rows after it. Raises psycopg's errors."""
        cursor = await connection.execute(self._queries["observe_workers"], {"worker_id": self._worker_id})
        workers = await cursor.fetchall()
        if self._clock() - self._looked > self._lease / 2:
            # While a statement hung, or this process stood still, nobody watched: that is no silence of others (V3).
            self.begin()
        self._looked = self._clock()
        self.others = sum(worker["serves_ours"] for worker in workers)
        known = {worker["worker_id"] for worker in workers}
        self._seen = {worker_id: seen for worker_id, seen in self._seen.items() if worker_id in known}
        rescued: list[DictRow] = []
        for worker in workers:
            if (verdict := self._dead(worker)) is not None:
                rescued += await self._rescue(connection, worker, by_lock=verdict == "lock")
        return rescued + await self._orphans(connection)

    def _dead(self, worker: DictRow) -> Literal["lock", "silence"] | None:
        now = self._clock()
        seen = self._seen.get(worker["worker_id"])
        if seen is None or seen.beat != worker["beat"]:
            self._seen[worker["worker_id"]] = _Seen(worker["beat"], now)
            return None
        still = now - seen.since
        # A free lock means that the beat's session is gone, which after an outage is everybody's state for a moment:
        # it counts only for a session that is older than the lease (V2). 0.9: two looks a heartbeat apart jitter.
        by_lock = (
            worker["lock_ok"]
            and worker["lock_free"]
            and still >= 0.9 * self._heartbeat
            and now - self._session_since >= self._lease
        )
        if by_lock:
            return "lock"
        return "silence" if still >= self._lease else None

    async def _rescue(self, connection: AsyncConnection[DictRow], worker: DictRow, *, by_lock: bool) -> list[DictRow]:
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            found = await self._one(connection, "lock_dead", {"worker_id": worker["worker_id"], "beat": worker["beat"]})
            if found is None:  # it has beaten since, or another rescuer is at it
                return []
            if by_lock and not await self._lock_still_free(connection, worker["lock_key"]):
                return []
            # F3: what the dead worker's connections were in the middle of ends before its jobs are taken.
            name = {"application_name": f"threadline:{worker['worker_id']}"}
            await connection.execute(self._queries["terminate_backends"], name)
            rows = await self._take(connection, worker["worker_id"], found["beat_at"])
            await connection.execute(self._queries["unregister"], {"worker_id": worker["worker_id"]})
        self._seen.pop(worker["worker_id"], None)
        log.warning("worker.dead", dead_worker_id=worker["worker_id"], by_lock=by_lock, jobs=len(rows))
        return rows

    async def _orphans(self, connection: AsyncConnection[DictRow]) -> list[DictRow]:
        """L6: running jobs whose worker has no row."""
        return await self._take(connection, None, None)

    async def _take(
        self, connection: AsyncConnection[DictRow], worker_id: str | None, silent_since: Any
    ) -> list[DictRow]:
        params = {"worker_id": worker_id, "limit": STALL_LIMIT, "silent_since": silent_since}
        return await (await connection.execute(self._queries["rescue"], params)).fetchall()

    async def _lock_still_free(self, connection: AsyncConnection[DictRow], key: int) -> bool:
        """Take the worker's lock for this transaction: no session of its holds it, nor will until the commit."""
        cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s) AS free", (key,))
        row = await cursor.fetchone()
        return bool(row and row["free"])

    async def _one(self, connection: AsyncConnection[DictRow], query: str, params: dict[str, Any]) -> DictRow | None:
        return await (await connection.execute(self._queries[query], params)).fetchone()
