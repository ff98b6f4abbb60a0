"""Connections to Postgres with a time limit on every call, and errors that say what to do and never show a password."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import AsyncConnection, BaseConnection, Connection, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from threadline.errors import BackendUnavailable, ConfigurationError, NotMigrated
from threadline.refusals import refusal_of_postgres, said_by

__all__ = ["Database", "connection_kwargs", "refused", "speaking", "telling"]

Row = DictRow
#: OperationalError holds what an outage, a limit or a conflict raises; these say the same and are no such errors.
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolClosed,
    errors.InsufficientPrivilege,
    errors.ReadOnlySqlTransaction,
    errors.TransactionTimeout,
)
#: The first version of Postgres that ends a whole transaction by itself.
_HAS_TRANSACTION_TIMEOUT = 170_000
#: Undoes what others have set. DISCARD ALL would also drop the prepared statements, which psycopg counts on.
_AS_NEW: LiteralString = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP"
)
#: What libpq guesses beside what it knows: the sentence that we add says it better.
_LIBPQS_QUESTION: Final = re.compile(
    r"\s*(?:Is the server running on|This probably means the server|Either provide the).*", re.DOTALL
)
_NOT_MIGRATED = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedColumn)


def connection_kwargs(application_name: str, **more: Any) -> dict[str, Any]:
    """How every connection of ours is made: autocommit, prepared statements, dict rows, keepalives, a connect limit."""
    return {
        "autocommit": True,
        "prepare_threshold": 0,
        "row_factory": dict_row,
        "application_name": application_name,
        "connect_timeout": 5,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        **more,
    }


@asynccontextmanager
async def speaking(limit: float) -> AsyncIterator[None]:
    """Everything inside has `limit` seconds; psycopg's errors come out as BackendUnavailable or NotMigrated."""
    with telling():
        try:
            async with asyncio.timeout(limit):
                yield
        except (TimeoutError, PoolTimeout) as error:
            raise BackendUnavailable(f"Postgres did not answer within {limit:g} s: is DATABASE_URL right?") from error


@contextmanager
def telling() -> Iterator[None]:
    """The half of `speaking` that blocking code needs, too: psycopg's errors come out as ours."""
    try:
        yield
    except _NOT_MIGRATED as error:
        raise NotMigrated(
            f"the database has no current Threadline schema: run `threadline migrate` ({_line(error)})"
        ) from error
    except _UNAVAILABLE as error:
        raise refused(error) from error


def refused(error: psycopg.Error | PoolClosed) -> BackendUnavailable:
    """The server's own words, and what to do about them."""
    said, state = _line(error), getattr(error, "sqlstate", None)
    known = refusal_of_postgres(said, state)
    if known is None:
        return BackendUnavailable(f"Postgres: {said}")
    return BackendUnavailable(f"Postgres: {said}: {known.do}", passing=known.passing)


class Database:
    """A pool that opens on first use. `limit` is the seconds that any one call may take.

    After `transaction_timeout` seconds the server itself ends a transaction and its connection, also one whose client
    stands still (F3); Postgres before 17 has no such limit. None sets none: migrations and restoring take their time.
    `lent` is for connections that code of others uses: what it has set (a role, say) is undone before the next one.
    Raises ConfigurationError for an URL that libpq cannot read, without showing it: it holds the password.
    """

    def __init__(
        self,
        url: str,
        *,
        application_name: str,
        min_size: int = 0,
        max_size: int = 4,
        limit: float = 10.0,
        transaction_timeout: float | None = None,
        lent: bool = False,
        **kwargs: Any,
    ) -> None:
        self.url = _checked(url)
        self.transaction_timeout = transaction_timeout
        self._opening = asyncio.Lock()
        self.limit = limit
        self._kwargs = connection_kwargs(application_name, **kwargs)
        self.prepare_threshold: int | None = self._kwargs["prepare_threshold"]
        self.pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            url,
            kwargs=self._kwargs,
            configure=self._configure,
            reset=self._as_new if lent else None,
            min_size=min_size,
            max_size=max_size,
            open=False,
            timeout=limit,
            num_workers=1,
            # An attempt's pauses double while the server is away: after so long a new one begins at its shortest.
            reconnect_timeout=1.0,
            reconnect_failed=_grow_again,
            name=application_name,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give all connections back; safe to call twice."""
        await self.pool.close()

    async def connect(self) -> AsyncConnection[DictRow]:
        """A connection of its own, outside the pool. Raises BackendUnavailable."""
        async with speaking(self.limit):
            connection = await AsyncConnection.connect(self.url, **self._kwargs)
            await self._configure(connection)
            return connection

    def connect_blocking(self) -> Connection[DictRow]:
        """The same for code that runs in a thread. Raises BackendUnavailable."""
        with telling():
            connection = Connection[DictRow].connect(self.url, **self._kwargs)
            if limiting := self._limiting(connection):
                connection.execute(limiting)
            return connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A pooled connection in autocommit; the block has `limit` seconds. Raises BackendUnavailable, NotMigrated."""
        await self.ready()
        async with speaking(self.limit), self.pool.connection() as connection:
            yield connection

    async def ready(self) -> None:
        """Open the pool if it is not yet. Raises BackendUnavailable."""
        if self.pool.closed:
            await self._open()

    async def rows(self, query: LiteralString, params: Mapping[str, Any] | None = None) -> list[DictRow]:
        """Run one statement and fetch all of it."""
        async with self.connection() as connection:
            cursor = await connection.execute(query, params)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, query: LiteralString, params: Mapping[str, Any] | None = None) -> DictRow | None:
        """Run one statement and fetch its first row; None if there is none, which is an answer."""
        found = await self.rows(query, params)
        return found[0] if found else None

    async def _configure(self, connection: AsyncConnection[DictRow]) -> None:
        if limiting := self._limiting(connection):
            await connection.execute(limiting)

    async def _as_new(self, connection: AsyncConnection[DictRow]) -> None:
        async with asyncio.timeout(self.limit):  # the pool's only task waits for it
            await connection.execute(_AS_NEW, prepare=False)
            await self._configure(connection)

    def _limiting(self, connection: BaseConnection[Any]) -> LiteralString | None:
        """The statement that sets the limit. As a start option an older server would refuse the whole connection."""
        if self.transaction_timeout is None or connection.info.server_version < _HAS_TRANSACTION_TIMEOUT:
            return None
        milliseconds: Any = int(self.transaction_timeout * 1000)  # a number is as literal as it gets
        return f"SET transaction_timeout = {milliseconds}"

    async def _open(self) -> None:
        async with self._opening:
            if not self.pool.closed:  # opened meanwhile by another task
                return
            # A pool says only "timeout" when it cannot connect: ask once directly, so that the reason is told.
            probe = await self.connect()
            await probe.close()
            async with speaking(self.limit):
                # In no job's context: the pool's tasks outlive the one that needed a connection first.
                await asyncio.create_task(self.pool.open(), context=contextvars.Context())


def _checked(url: str) -> str:
    """The URL as it is. libpq's own messages about one that it misreads quote pieces of it."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        parts = {"host": "@"}
    ports = str(parts.get("port") or "").split(",")
    if "@" in str(parts.get("host") or "") or not all(port.isdecimal() or not port for port in ports):
        raise ConfigurationError(
            "DATABASE_URL is not a URL that libpq reads: use postgresql://user:password@host:port/database, special"
            " characters in the password as %XX (`@` is %40, `/` is %2F)"
        ) from None
    return url


def _line(error: BaseException) -> str:
    """An error's message as one line; libpq's messages hold host, port and user but no password."""
    said = _LIBPQS_QUESTION.sub("", said_by(error))
    return said.rstrip(".?") or type(error).__name__


def _grow_again(pool: AsyncConnectionPool[Any]) -> None:
    """psycopg_pool gives up without a new attempt for those that wait: they would wait for their whole limit."""
    if pool._waiting:  # noqa: SLF001 - no public way asks for a connection without waiting for it
        pool._maybe_grow_pool()  # noqa: SLF001 - the same
