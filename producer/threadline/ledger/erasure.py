"""All that Postgres has of one user goes, batch by batch, and what is left is counted; safe to repeat and to interrupt.

The jobs go first: without its row no job passes the fence, so whatever a worker or a zombie still writes fails. The
threads go last, with the count: until then their ids stay the user's, and nobody else can look into what is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection, Rollback, errors

from threadline.contract.carried import carries_job_of
from threadline.contract.codec import dumps
from threadline.contract.user_names import UserNames
from threadline.encryption import places
from threadline.errors import BackendUnavailable, CannotDecrypt, ConfigurationError
from threadline.ledger.database import Database, Row
from threadline.ledger.ledger import Ledger

__all__ = ["Erasing", "Erasure", "erasing"]

_BATCH: Final = 2_000
#: Jobs drag a dozen rows each along.
_JOBS: Final = 200
#: Bodies in memory at once, of 64 KiB at most.
_LETTERS: Final = 100
#: An enqueue that is under way is waited for so often, two seconds each time: behind the wait others queue up.
_TRIES: Final = 15
#: A batch waits for a running saver's transaction, and no call is quick on a large table.
_CALL_SECONDS: Final = 120.0
#: Rows of threads, in this order: the newest writes first, so that nobody reads half a thread.
_OF_THREADS: Final = ("checkpoint_writes", "checkpoint_blobs", "checkpoints", "effects")


class Erasing(NamedTuple):
    """Rows that are gone, by table, and those that are left (checked at the end); `done`: Postgres has none."""

    erased: dict[str, int]
    left: dict[str, int]
    done: bool

    def as_json(self) -> str:
        """The counts as the audit has them."""
        return dumps({"erased": self.erased, "left": self.left}).decode()


class Erasure:
    """Of one user. `database` has connections of its own with time for large tables (`erasing`)."""

    def __init__(self, ledger: Ledger, database: Database, user_id: str) -> None:
        self._queries = ledger.queries
        self.vault = ledger.vault
        self._lease = ledger.lease_seconds
        self._database = database
        self.user_id = user_id

    async def begin(self, names: UserNames) -> None:
        """From now on nothing new of the user is taken.

        Raises ConfigurationError if live workers call their users otherwise, BackendUnavailable.
        """
        for row in await self._database.rows(self._queries["user_names"], {"lease_seconds": self._lease}):
            if not names.knows(row["user_names"]):
                raise ConfigurationError(
                    "THREADLINE_USER_HASH_KEYS is not what the workers have: with it, the user's memory would not be"
                    " found; nothing was deleted"
                )
        params = {"user_id": self.user_id, "names": list(names.all(self.user_id))}
        for left in reversed(range(_TRIES)):
            try:
                async with self._database.connection() as connection, connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '2s'")
                    await connection.execute(self._queries["erase_begin"], params)
            except BackendUnavailable as error:
                if not left or not isinstance(error.__cause__, errors.LockNotAvailable):
                    raise
            else:
                return

    async def erase(self) -> AsyncIterator[list[str]]:
        """All batches. Yields the ids of jobs that were in somebody's hands, once they are gone."""
        while True:
            row = await self._batch("jobs", "erase_jobs", limit=_JOBS)
            if row is None:
                return
            yield row["recent"]
            if not row["erased"]:
                break
        for table in _OF_THREADS:
            await self._batches(table, f"erase_{table}", limit=_BATCH)
        await self._erase_store()
        await self._erase_letters()

    async def finish(self, subject: str) -> Erasing:
        """Delete the threads and leave an audit line, if nothing else is left; not done: another round is needed."""
        letters = len(await self._letters())
        found = Erasing({}, {}, done=True)
        async with self._database.connection() as connection, connection.transaction():
            held = await self._held(connection)
            if held is None or held["erased_at"] is not None:  # another process has finished it
                return found._replace(erased=dict(held["counts"]) if held else {})
            params = {"user_id": self.user_id, "names": held["names"]}
            cursor = await connection.execute(self._queries["erase_threads"], params)
            threads = [row["thread_id"] for row in await cursor.fetchall()]
            cursor = await connection.execute(self._queries["erase_left"], {**params, "threads": threads})
            left = {**(await cursor.fetchone() or {}), "dead_letters": letters}
            found = Erasing({**held["counts"], "threads": len(threads)}, left, done=not any(left.values()))
            if not found.done:
                raise Rollback
            params |= {"subject": subject, "counts": found.as_json()}
            await connection.execute(self._queries["erase_done"], params)
        return found

    async def jobs(self) -> AsyncIterator[list[Row]]:
        """What Redis may have of the jobs that are gone, page by page: job_id, thread_id, epoch, recent."""
        after = ""
        while True:
            params = {"user_id": self.user_id, "after": after, "limit": _BATCH}
            page = await self._database.rows(self._queries["erase_in_redis"], params)
            if not page:
                return
            yield page
            after = page[-1]["job_id"]

    async def queues(self) -> list[str]:
        """Where messages of the user may wait."""
        rows = await self._database.rows(self._queries["erase_queues"], {"user_id": self.user_id})
        return [row["queue"] for row in rows]

    async def asked_at(self) -> datetime | None:
        """When Postgres was done; None: there is no erasure of the user, or it is not."""
        row = await self._database.row(self._queries["erase_hold"], {"user_id": self.user_id})
        return None if row is None else row["erased_at"]

    async def forget(self, found: Erasing) -> None:
        """Redis has nothing either: the id goes, and the audit line says so."""
        await self._database.rows(self._queries["erase_gone"], {"user_id": self.user_id, "counts": found.as_json()})

    async def _batches(self, table: str, query: str, **params: Any) -> None:
        while (row := await self._batch(table, query, **params)) is not None and row["erased"]:
            pass

    async def _batch(self, table: str, query: str, **params: Any) -> Row | None:
        """One transaction: what it deletes is counted, or neither. None: the erasure is finished."""
        async with self._database.connection() as connection, connection.transaction():
            held = await self._held(connection)
            if held is None or held["erased_at"] is not None:
                return None
            cursor = await connection.execute(self._queries[query], {"user_id": self.user_id, **params})
            row = await cursor.fetchone()
            assert row is not None  # noqa: S101 - a count always has a row
            if row["erased"]:
                counted = {"user_id": self.user_id, "what": table, "erased": row["erased"]}
                await connection.execute(self._queries["erase_count"], counted)
        return row

    async def _held(self, connection: AsyncConnection[Row]) -> Row | None:
        await _wait_at_most(connection)
        cursor = await connection.execute(self._queries["erase_hold"], {"user_id": self.user_id})
        return await cursor.fetchone()

    async def _erase_store(self) -> None:
        held = await self._database.row(self._queries["erase_hold"], {"user_id": self.user_id})
        if held is not None:
            rows = await self._database.rows(self._queries["erase_prefixes"], {"names": held["names"]})
            prefixes = [row["prefix"] for row in rows]
            await self._batches("store", "erase_store", prefixes=prefixes, limit=_BATCH)

    async def _erase_letters(self) -> None:
        if messages := await self._letters():
            await self._batch("dead_letters", "erase_letter", messages=messages)

    async def _letters(self) -> list[str]:
        """Dead letters with a job of the user; those that cannot be read with this process's keys are nobody's."""
        found: list[str] = []
        after = ""
        while True:
            page = await self._database.rows(self._queries["erase_letters"], {"after": after, "limit": _LETTERS})
            bodies = [(row["message_id"], self._opened(row)) for row in page if row["body"] is not None]
            found += [message for message, body in bodies if carries_job_of(body, self.user_id)]
            if len(page) < _LETTERS:
                return found
            after = page[-1]["message_id"]

    def _opened(self, row: Row) -> bytes:
        try:
            if not self.vault.on:
                return bytes(row["body"])
            return self.vault.open_bytes(bytes(row["body"]), places.dead_letter("body", row["message_id"]))
        except CannotDecrypt:
            return bytes(row["body"])


@asynccontextmanager
async def erasing(ledger: Ledger, user_id: str) -> AsyncIterator[Erasure]:
    """An erasure with a connection of its own. Raises BackendUnavailable."""
    async with Database(
        ledger.database.url,
        application_name="threadline-erasure",
        max_size=2,
        limit=_CALL_SECONDS,
        prepare_threshold=ledger.database.prepare_threshold,
    ) as database:
        yield Erasure(ledger, database, user_id)


async def _wait_at_most(connection: AsyncConnection[Row]) -> None:
    await connection.execute("SET LOCAL lock_timeout = '30s'")
