"""The ledger without any worker process: what a producer and what workers ask of it, as one object."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import psycopg

from threadline.contract.job import JobRequest, new_id
from threadline.contract.keys import Keys
from threadline.contract.states import OnBusy
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database, Row
from threadline.ledger.ledger import Enqueued
from threadline.ledger.sql import Queries
from threadline_worker.embedded import ServerUrls

__all__ = [
    "Bench",
    "Recorded",
    "bench_on",
    "cloned",
    "emptied",
    "record_transitions",
    "recorded_transitions",
    "request",
]

#: Notes every change of a job's row that matters here, whoever makes it.
_RECORDER = """
CREATE TABLE threadline.recorded (
    n bigint GENERATED ALWAYS AS IDENTITY, job_id text, "from" text, "to" text, before bigint, after bigint,
    transition text);
CREATE FUNCTION threadline.record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO threadline.recorded (job_id, "from", "to", before, after, transition)
    VALUES (NEW.job_id, OLD.state, NEW.state, OLD.epoch, NEW.epoch, NEW.transition);
    RETURN NEW;
END $$;
CREATE TRIGGER record AFTER UPDATE ON threadline.jobs FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.epoch <> NEW.epoch) EXECUTE FUNCTION threadline.record();
"""


class Recorded(NamedTuple):
    """A change of a job's row: states and epochs before and after."""

    job_id: str
    from_state: str
    to_state: str
    before: int
    after: int
    transition: str


def request(**options: Any) -> JobRequest:
    """A request for the agent `steps` on a new thread, changed by options."""
    on_busy = OnBusy(options.pop("on_busy", "enqueue"))
    usual: dict[str, Any] = {"job_id": new_id(), "agent": "steps", "input": {"until": 1}, "thread_id": new_id()}
    return JobRequest(**{**usual, **options}, on_busy=on_busy).check()


class Bench:
    """`ledger` with hands for what a test does often."""

    def __init__(self, database: Database) -> None:
        self.ledger = Custody(database, Queries(Keys().schema))

    async def worker(
        self, worker_id: str, agents: str = '{"steps": {"text_input": null}}', queues: tuple[str, ...] = ("default",)
    ) -> str:
        """Register a worker."""
        params = {"worker_id": worker_id, "lock_key": 1, "version": "0", "agents": agents, "concurrency": 1}
        await self.run("register", **params, queues=list(queues))
        return worker_id

    async def enqueue(self, **options: Any) -> Enqueued:
        """Store `request(**options)`."""
        connection = options.pop("connection", None)
        asked = request(**options)
        return await self.ledger.enqueue(
            asked, fingerprint=asked.fingerprint(), dispatching=connection is None, connection=connection
        )

    async def claim(self, job_id: str, worker_id: str = "w1") -> Claim:
        """Claim; AssertionError if it is not ours then."""
        claim = await self.ledger.claim(job_id, worker_id)
        assert isinstance(claim, Claim), claim
        return claim

    async def started(self, worker_id: str = "w1", **options: Any) -> Claim:
        """A new job, claimed."""
        return await self.claim((await self.enqueue(**options)).job_id, worker_id)

    async def rescue(self, worker_id: str | None = "w1", limit: int = 3) -> list[Row]:
        """What a rescuer does once it takes the worker for dead."""
        rows = await self.run("rescue", worker_id=worker_id, limit=limit, silent_since=None)
        if worker_id is not None:
            await self.run("unregister", worker_id=worker_id)
        return rows

    async def run(self, query: str, **params: Any) -> list[Row]:
        """One of the ledger's own statements."""
        return await self.ledger.database.rows(self.ledger.queries[query], params)

    async def sql(self, text: str, *params: Any) -> list[Row]:
        """A statement of the test's own."""
        async with self.ledger.database.connection() as connection:
            cursor = await connection.execute(text.encode(), params)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, job_id: str) -> Row:
        """All columns of a job."""
        return (await self.sql("SELECT * FROM threadline.jobs WHERE job_id = %s", job_id))[0]

    async def set(self, job_id: str, assignment: str) -> None:
        """Change a job's row behind everybody's back, so that nobody has to wait for a clock."""
        await self.sql(f"UPDATE threadline.jobs SET {assignment} WHERE job_id = %s", job_id)

    async def end(self, job_id: str, state: str) -> None:
        """Bring a queued head to an end."""
        claim = await self.claim(job_id)
        interrupts = [{"id": "i", "value": 1}] if state == "interrupted" else None
        assert await self.ledger.finish(claim, state, code=None, interrupts=interrupts)  # type: ignore[arg-type]  # a State's value


@contextlib.asynccontextmanager
async def bench_on(
    database_url: str, *, workers: tuple[str, ...] = ("w1", "w2"), size: int = 4
) -> AsyncIterator[Bench]:
    """A Bench with registered workers. `size` is the number of connections."""
    async with Database(database_url, application_name="tests", max_size=size, limit=30) as database:
        bench = Bench(database)
        for worker_id in workers:
            await bench.worker(worker_id)
        yield bench


@contextlib.contextmanager
def cloned(servers: ServerUrls, template: str) -> Iterator[str]:
    """A migrated database that the tests of a module share, for a clone costs ten times what a test does."""
    name = f"shared_{secrets.token_hex(6)}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        try:
            yield f"{servers.database_url.rsplit('/', 1)[0]}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def emptied(database_url: str) -> str:
    """The shared database, without what the test before left in it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("jobs", "threads", "workers", "dead_letters", "checkpoints"):
            connection.execute(f"DELETE FROM threadline.{table}".encode())
    return database_url


def record_transitions(database_url: str) -> None:
    """From now on every transition of a job is noted in the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_RECORDER)


def recorded_transitions(database_url: str) -> list[Recorded]:
    """What was noted, in order."""
    query = 'SELECT job_id, "from", "to", before, after, transition FROM threadline.recorded ORDER BY n'
    with psycopg.connect(database_url) as connection:
        return [Recorded(*row) for row in connection.execute(query).fetchall()]
