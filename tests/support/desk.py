"""The worker's half of the ledger without a worker: register, claim and look, all on the test's own database."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from threadline.contract.job import JobRequest
from threadline.contract.keys import Keys
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline_worker.checkpoints import Commit, Fence, FencedSaver
from threadline_worker.liveness import worker_lock_key

__all__ = ["Desk", "LedgerView", "desk_on"]

#: Everything that a run may write.
RUN_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "store")


class LedgerView:
    """Plain SQL on a test's database, as schema `threadline`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, query: str, *params: Any) -> list[dict[str, Any]]:
        with psycopg.connect(
            self._url, autocommit=True, row_factory=dict_row, options="-c search_path=threadline,public"
        ) as connection:
            cursor = connection.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def job(self, job_id: str) -> dict[str, Any]:
        return self.rows("SELECT * FROM jobs WHERE job_id = %s", job_id)[0]

    def dump(self, *tables: str) -> dict[str, list[str]]:
        """All rows of tables as text, in a stable order; for comparisons."""
        return {
            table: [row["r"] for row in self.rows(f"SELECT t::text AS r FROM {table} AS t ORDER BY 1")]
            for table in tables or (*RUN_TABLES, "jobs")
        }


class Desk:
    """Workers without processes."""

    def __init__(self, url: str, database: Database, checkpoints: Database) -> None:
        self.keys = Keys()
        self.queries = Queries(self.keys.schema)
        self.database = database
        self.checkpoints = checkpoints
        self.ledger = Custody(database, self.queries)
        self.view = LedgerView(url)

    async def register(self, worker_id: str) -> str:
        await self.database.rows(
            self.queries["register"],
            {
                "worker_id": worker_id,
                "lock_key": worker_lock_key(self.keys.schema, worker_id),
                "version": "0",
                "agents": "{}",
                "concurrency": 1,
                "queues": ["default"],
            },
        )
        return worker_id

    async def enqueue(self, thread_id: str, agent: str = "steps", value: Any = None) -> str:
        request = JobRequest(
            job_id=uuid.uuid4().hex, agent=agent, input=value or {"done": [], "until": 3}, thread_id=thread_id
        )
        stored = await self.ledger.enqueue(
            request, fingerprint=request.fingerprint(), dispatching=False, check_agent=False
        )
        return stored.job_id

    async def claim(self, thread_id: str, worker_id: str = "w-a") -> Claim:
        """A new job on the thread in this worker's hands."""
        await self.register(worker_id)
        claim = await self.ledger.claim(await self.enqueue(thread_id), worker_id)
        assert isinstance(claim, Claim)
        return claim

    async def rescue(self, worker_id: str, limit: int = 3) -> list[dict[str, Any]]:
        """What a rescuer does with a worker that it takes for dead."""
        params = {"worker_id": worker_id, "limit": limit, "silent_since": None}
        return await self.database.rows(self.queries["rescue"], params)

    def saver(self, claim: Claim, commits: list[Commit] | None = None, **wrong: Any) -> FencedSaver:
        """The claim's saver; `wrong` replaces parts of its fence."""
        fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)._replace(**wrong)
        heard = commits if commits is not None else []
        return FencedSaver(self.checkpoints.pool, fence, self.queries, on_commit=heard.append)


@asynccontextmanager
async def desk_on(url: str) -> AsyncIterator[Desk]:
    async with (
        Database(url, application_name="desk") as database,
        Database(url, application_name="desk", options="-c search_path=threadline,public") as checkpoints,
    ):
        async with checkpoints.connection():
            pass
        yield Desk(url, database, checkpoints)
