"""A blocking caller's own connection: what is asked of it runs in the caller's thread and transaction (L3).

The event loop asks with `row`, the caller's thread stands in `serve`. So a lock that the insert waits for holds up its
caller alone, Ctrl-C reaches psycopg as it always does, and the connection never sees another thread.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Mapping
from functools import partial
from typing import Any, LiteralString, NamedTuple

from psycopg import Connection
from psycopg.rows import DictRow, dict_row

from threadline.errors import InvalidJob
from threadline.ledger.database import telling

__all__ = ["Lent"]


class _Asked(NamedTuple):
    query: LiteralString
    params: Mapping[str, Any]
    answer: asyncio.Future[DictRow | None]


class Lent:
    """One statement after the other runs on the connection. Raises InvalidJob for what is no psycopg Connection."""

    def __init__(self, connection: Connection[Any]) -> None:
        if not isinstance(connection, Connection):
            raise InvalidJob(
                f"connection= is a {type(connection).__name__}: give a psycopg (3) Connection; with Django that is"
                " `connection.connection` inside transaction.atomic()"
            )
        self._connection = connection
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()

    async def row(self, query: LiteralString, params: Mapping[str, Any]) -> DictRow | None:
        """In the event loop: have the caller run one statement inside a savepoint; its first row."""
        asked = _Asked(query, params, asyncio.get_running_loop().create_future())
        self._asked.put(asked)
        return await asked.answer

    def serve(self) -> None:
        """In the caller's thread: run what is asked, return at `withdraw`. Raises BackendUnavailable, NotMigrated."""
        while (asked := self._asked.get()) is not None:
            # The time limit is the caller's: his transaction, his statement_timeout.
            with telling():
                row = self._run(asked)
            asked.answer.get_loop().call_soon_threadsafe(partial(_answer, asked.answer, row))

    def withdraw(self) -> None:
        """Nothing more will be asked."""
        self._asked.put(None)

    def _run(self, asked: _Asked) -> DictRow | None:
        connection = self._connection
        if not connection.autocommit:
            # psycopg commits a block that it had to begin itself: let the caller's transaction begin before it. Not by
            # `connection.execute`: a row factory of the caller's may want a column.
            connection.cursor(row_factory=dict_row).execute("SELECT")
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(asked.query, asked.params)
            return cursor.fetchone()


def _answer(future: asyncio.Future[DictRow | None], row: DictRow | None) -> None:
    if not future.done():  # the client may have been closed meanwhile
        future.set_result(row)
