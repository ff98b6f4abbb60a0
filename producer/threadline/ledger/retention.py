"""What is old goes from the ledger in small batches: their transactions wait for nobody, and hold nobody up for long.

Nothing of a thread with a queued or running job goes, nor, unless told, of one that waits for a person.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from threadline.encryption.rows import sealed_json
from threadline.ledger.ledger import Ledger

__all__ = ["Retention"]

_BATCH: Final = 200
#: Descriptions of graphs, some kilobytes each; looking for those that nobody needs takes longer than keeping these.
_FEW_GRAPHS: Final = 1_000
#: A compaction that no worker has begun, or finished, by then is given up; the next round tries again.
COMPACTION_SECONDS: Final = 600.0


class Retention:
    """The statements of one ledger; ages are seconds. Every call raises BackendUnavailable, NotMigrated."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._database = ledger.database
        self._queries = ledger.queries

    async def prune_jobs(self, age: float) -> int:
        """Jobs that ended so long ago, with their idempotency keys, effects and delivered reports; how many."""
        pruned = 0
        after: datetime | None = None
        while True:
            params = {"seconds": age, "after": after, "limit": _BATCH}
            due = await self._database.rows(self._queries["prune_due"], params)
            if not due:
                return pruned
            threads = sorted({row["thread_id"] for row in due})
            pruned += await self._pruned("prune_jobs", threads=threads, seconds=age)
            after = due[-1]["finished_at"]

    async def prune_letters(self, age: float) -> int:
        """Dead letters that came so long ago; how many."""
        pruned = 0
        while gone := await self._pruned("prune_letters", seconds=age, limit=_BATCH):
            pruned += gone
        return pruned

    async def prune_graphs(self, age: float, *, most: int = _FEW_GRAPHS) -> int:
        """Graphs that no job was left with, unless there are at most `most`; how many."""
        return await self._pruned("prune_graphs", seconds=age, most=most)

    async def prune_threads(self, age: float, *, waiting: bool) -> int:
        """Threads that have been idle for so long, whole; how many."""
        pruned, after = 0, ""
        while page := await self._threads("prune_old", after, age, waiting=waiting):
            for thread_id in page:
                pruned += await self._prune_thread(thread_id, age, waiting=waiting)
            after = page[-1]
        return pruned

    async def idle(self, after: str, age: float, *, waiting: bool) -> list[str]:
        """A page of threads behind `after` that could be compacted, in order."""
        return await self._threads("prune_idle", after, age, waiting=waiting)

    async def hold(
        self, job_id: str, thread_id: str, age: float, *, waiting: bool, dispatching: bool
    ) -> tuple[str, str]:
        """An internal job compacts the thread, if it is still idle (L9): created, busy, no_agent, unknown_agent.

        With it the queue that it is in, which is of use if it was created.
        """
        params = {
            "job_id": job_id,
            "thread_id": thread_id,
            "input": sealed_json(self._ledger.vault, "input", {}, job_id),
            "idle_seconds": age,
            "waiting": waiting,
            "seconds": COMPACTION_SECONDS,
            "lease_seconds": self._ledger.lease_seconds,
            "dispatching": dispatching,
        }
        row = await self._database.row(self._queries["prune_hold"], params)
        assert row is not None  # noqa: S101 - the function always returns one row
        return str(row["outcome"]), str(row["queue"])

    async def left_alone(self, seconds: float) -> list[str]:
        """Users whose erasure nobody has worked on for so long."""
        params = {"seconds": seconds, "limit": _BATCH}
        return [row["user_id"] for row in await self._database.rows(self._queries["erase_left_alone"], params)]

    async def _threads(self, query: str, after: str, age: float, *, waiting: bool) -> list[str]:
        params = {"after": after, "seconds": age, "waiting": waiting, "limit": _BATCH}
        return [row["thread_id"] for row in await self._database.rows(self._queries[query], params)]

    async def _prune_thread(self, thread_id: str, age: float, *, waiting: bool) -> int:
        params = {"thread_id": thread_id, "seconds": age, "waiting": waiting}
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            cursor = await connection.execute(self._queries["prune_lock"], params)
            if await cursor.fetchone() is None:
                return 0
            # A statement of its own: it sees what was committed before the lock was had.
            cursor = await connection.execute(self._queries["prune_thread"], params)
            row = await cursor.fetchone()
        return 0 if row is None else int(row["pruned"])

    async def _pruned(self, query: str, **params: Any) -> int:
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            cursor = await connection.execute(self._queries[query], params)
            row = await cursor.fetchone()
        return 0 if row is None else int(row["pruned"])
