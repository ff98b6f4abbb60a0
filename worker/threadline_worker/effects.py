"""What a run's tools did outside their checkpoints, in the ledger: a stale worker can record nothing (F2)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString, NamedTuple, Protocol, TypeVar

import psycopg
from psycopg import AsyncConnection, BaseConnection, Connection
from psycopg.rows import DictRow

from threadline.contract.codec import dumps, loads
from threadline.encryption import places
from threadline.encryption.vault import PLAIN, Vault
from threadline.errors import BackendUnavailable
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.refusals import said_by
from threadline_worker.checkpoints import CALL_SECONDS, FENCE_STATE, CheckpointsAway, Fence, LeaseLost, fenced

__all__ = ["Begun", "Effects", "LedgerEffects", "MemoryEffects", "effects_of_this_run"]

T = TypeVar("T")

#: An effect that was done is worth waiting for Postgres: for so long its result is tried to be stored.
STORE_SECONDS = 30.0
_PAUSE_SECONDS = 0.5


class Begun(NamedTuple):
    """What is known of an effect: `done` has the JSON of its result, `in_doubt` who began it and when."""

    outcome: Literal["new", "done", "in_doubt"]
    result: str | None = None
    begun_at: datetime | None = None
    worker_id: str | None = None


class Effects(Protocol):
    """Where `threadline_worker.once` keeps what it is told. Results are JSON as text."""

    async def begin(self, key: str, *, mark: bool) -> Begun:
        """Look, and with `mark` write down that the effect begins now."""

    async def finish(self, key: str, result: str) -> str:
        """Keep the result; what is kept now, which may be an earlier one."""

    async def forget(self, key: str) -> None:
        """The effect did not happen: take the mark away."""

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Await from a tool's thread."""


#: Where the run that this task, or this thread of a tool, belongs to keeps its effects.
effects_of_this_run: ContextVar[Effects | None] = ContextVar("effects_of_this_run", default=None)


class LedgerEffects:
    """A run's effects in table `effects`. Every write passes the run's fence as its last act.

    `ledger` serves single statements, `transactions` gives connections for as long as a tool's own statements take.
    All raise LeaseLost, and CheckpointsAway where Postgres does not answer: the job goes on from its checkpoint later.
    """

    def __init__(
        self, ledger: Database, transactions: Database, queries: Queries, fence: Fence, *, vault: Vault = PLAIN
    ) -> None:
        self._ledger = ledger
        self._transactions = transactions
        self._queries = queries
        self._fence = fence
        self._vault = vault
        self._loop = asyncio.get_running_loop()

    async def begin(self, key: str, *, mark: bool) -> Begun:
        """Look, and with `mark` write down that the effect begins now."""
        self._on_own_loop()
        begun = Begun(**await self._row("effect_begin", key, mark=mark))
        return begun if begun.result is None else begun._replace(result=self._opened(key, begun.result))

    async def finish(self, key: str, result: str) -> str:
        """Keep the result. Safe to repeat, so an outage that is shorter than `STORE_SECONDS` leaves no doubt."""
        deadline = time.monotonic() + STORE_SECONDS
        while True:
            try:
                kept = (await self._row("effect_finish", key, result=self._sealed(key, result)))["result"]
                return self._opened(key, kept)
            except CheckpointsAway:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def forget(self, key: str) -> None:
        """The effect did not happen: take the mark away."""
        await self._row("effect_forget", key)

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Await on the worker's loop, which owns the connections. RuntimeError on that loop itself."""
        if _running_loop() is self._loop:
            call.close()
            raise RuntimeError("once_sync() would block the worker's event loop: in async code await once()")
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    async def within(self, key: str, act: Callable[[AsyncConnection[DictRow]], Awaitable[str]]) -> str:
        """What `act` writes and the record of its result are one transaction; an effect that is done is not repeated.

        Raises TimeoutError where the server ended the transaction because it took too long, and what `act` raises.
        """
        self._on_own_loop()
        connection, started = None, time.monotonic()
        try:
            await self._transactions.ready()
            async with asyncio.timeout(CALL_SECONDS), self._transactions.pool.connection() as connection:
                return await self._in_transaction(connection, key, act)
        except (psycopg.Error, BackendUnavailable) as error:
            if (meant := self._meant(error, connection, started)) is None:
                raise
            raise meant from error

    async def _in_transaction(
        self, connection: AsyncConnection[DictRow], key: str, act: Callable[[AsyncConnection[DictRow]], Awaitable[str]]
    ) -> str:
        async with connection.transaction():
            cursor = await connection.execute(*self._stored(key))
            if (stored := await cursor.fetchone()) is None:
                cursor = await connection.execute(*self._finished(key, await act(connection)))
                stored = await cursor.fetchone()
            return self._opened(key, _result(stored))

    def within_blocking(self, key: str, act: Callable[[Connection[DictRow]], str]) -> str:
        """The same in a tool's thread, on a connection of its own."""
        connection: Connection[DictRow] | None = None
        started = time.monotonic()
        try:
            connection = self._transactions.connect_blocking()
            with connection.transaction():
                if (stored := connection.execute(*self._stored(key)).fetchone()) is None:
                    stored = connection.execute(*self._finished(key, act(connection))).fetchone()
                return self._opened(key, _result(stored))
        except (psycopg.Error, BackendUnavailable) as error:
            if (meant := self._meant(error, connection, started)) is None:
                raise
            raise meant from error
        finally:
            if connection is not None:
                connection.close()

    def _on_own_loop(self) -> None:
        if _running_loop() is not self._loop:
            raise RuntimeError("this event loop is not the worker's, which has the connections: use once_sync()")

    def _meant(self, error: Exception, connection: BaseConnection[Any] | None, started: float) -> Exception | None:
        """What an error of a transaction says to the run; None: it is the tool's own."""
        if isinstance(error, psycopg.Error) and error.sqlstate == FENCE_STATE:
            return LeaseLost(str(error).splitlines()[0])
        if connection is not None and not connection.closed:
            return None
        limit = self._transactions.transaction_timeout
        if limit is not None and time.monotonic() - started >= limit:
            return TimeoutError(f"a tool's transaction may take {limit:g} s: do slow work before it")
        return CheckpointsAway(said_by(error) or type(error).__name__)

    def _stored(self, key: str) -> tuple[LiteralString, dict[str, Any]]:
        return self._queries["effect_stored"], self._params(key)

    def _finished(self, key: str, result: str) -> tuple[LiteralString, dict[str, Any]]:
        return self._queries["effect_finish"], {**self._params(key), "result": self._sealed(key, result)}

    def _sealed(self, key: str, result: str) -> str:
        if not self._vault.on:
            return result
        return dumps({"sealed": self._vault.seal_text(result.encode(), self._place(key))}).decode()

    def _opened(self, key: str, stored: str) -> str:
        if not self._vault.on and '"sealed"' not in stored:
            return stored
        value = loads(stored)
        opened = self._vault.open(value, self._place(key))
        return stored if opened is value else dumps(opened).decode()

    def _place(self, key: str) -> places.Place:
        return places.effect(self._fence.thread_id, key)

    async def _row(self, query: str, key: str, **more: Any) -> DictRow:
        with _fenced():
            row = await self._ledger.row(self._queries[query], {**self._params(key), **more})
        assert row is not None  # noqa: S101 - a SELECT without FROM, or from a function of one row
        return row

    def _params(self, key: str) -> dict[str, Any]:
        return {**self._fence._asdict(), "key": key}


class MemoryEffects:
    """Effects of a test, in `kept`: key → JSON of the result, or None where somebody began and nobody knows the end."""

    def __init__(self) -> None:
        self.kept: dict[str, str | None] = {}

    async def begin(self, key: str, *, mark: bool) -> Begun:
        """Look, and with `mark` note that the effect begins now."""
        if (result := self.kept.get(key)) is not None:
            return Begun("done", result)
        if mark and key in self.kept:
            return Begun("in_doubt", None, datetime.now(UTC), "memory")
        if mark:
            self.kept[key] = None
        return Begun("new")

    async def finish(self, key: str, result: str) -> str:
        """Keep the result; the first one stays."""
        if (kept := self.kept.get(key)) is None:
            kept = self.kept[key] = result
        return kept

    async def forget(self, key: str) -> None:
        """The effect did not happen."""
        self.kept.pop(key, None)

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Nothing here waits: run it to its end."""
        try:
            call.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what a coroutine returns is not typed here
        raise AssertionError("it waited")


@contextmanager
def _fenced() -> Iterator[None]:
    try:
        with fenced():
            yield
    except BackendUnavailable as error:
        raise CheckpointsAway(str(error)) from error


def _result(row: DictRow | None) -> str:
    assert row is not None  # noqa: S101 - a function's one row
    return str(row["result"])


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
