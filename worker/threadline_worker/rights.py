"""Asks both servers whether a worker can do its work there, and changes nothing by asking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from redis.exceptions import ResponseError

from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable
from threadline.ledger.sql import Queries

__all__ = ["check_encoding", "check_postgres", "check_redis", "queue_takes_writes"]

_LEAST_POSTGRES: Final = 140_000
#: No job and no message has this name.
_NOBODY: Final = "-"
_NAMED: Final = 3


async def queue_takes_writes(redis: Any, queue: str) -> None:
    """Raise what a replica, a full Redis or a user without the right says to a change of what is not there."""
    await redis.zadd(queue, {"": 0}, xx=True)


async def check_redis(redis: Any, keys: Keys, queue: str) -> None:
    """The queue, arq's keys, the logs and the channels of jobs. Raises redis' errors, which name the command."""
    await queue_takes_writes(redis, queue)
    looked_at = [f"arq:job:{_NOBODY}", f"arq:in-progress:{_NOBODY}", keys.events(_NOBODY), keys.events(_NOBODY)]
    async with redis.pipeline(transaction=False) as pipe:
        for key in looked_at[:-1]:
            pipe.expire(key, 1)
        pipe.publish(looked_at[-1], b"")  # nobody listens: with many workers a channel of theirs would be loud
        answers = await pipe.execute(raise_on_error=False)
    for key, answer in zip(looked_at, answers, strict=True):
        if isinstance(answer, ResponseError):
            raise ResponseError(f"{answer} ({key})") from answer


async def check_postgres(connection: AsyncConnection[DictRow], queries: Queries) -> str | None:
    """Why this role cannot run jobs on this server; None: it can. Raises psycopg's errors."""
    if connection.info.server_version < _LEAST_POSTGRES:
        found = connection.info.parameter_status("server_version") or connection.info.server_version
        return f"Postgres {found} is too old: use Postgres 14 or newer"
    row = await (await connection.execute(queries["worker_rights"])).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return _refusal(row)


def _refusal(row: DictRow) -> str | None:
    if row["in_recovery"]:
        return "Postgres is a read-only replica: point DATABASE_URL at the primary"
    if row["read_only"]:
        return (
            "Postgres takes no writes (default_transaction_read_only is on): point DATABASE_URL at the primary, or free"
            " the server's disk if that is why it is set"
        )
    if row["missing"]:
        return (
            f"Postgres: permission denied: the role {row['role']} lacks {_some(row['missing'])}: apply"
            " deploy/postgres/grants.sql after each migration, or put the worker's role into DATABASE_URL"
        )
    return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


async def check_encoding(connection: AsyncConnection[DictRow]) -> None:
    """Raise BackendUnavailable unless the database can store every text, and is new enough, before it is migrated."""
    if connection.info.server_version < _LEAST_POSTGRES:
        found = connection.info.parameter_status("server_version") or connection.info.server_version
        raise BackendUnavailable(f"Postgres {found} is too old: use Postgres 14 or newer", passing=False)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in {"UTF8", None}:
        raise BackendUnavailable(
            f"the database {connection.info.dbname} has the encoding {encoding}, which cannot store every text: make"
            " one with `createdb --encoding=UTF8 --template=template0`, and name it in DATABASE_URL",
            passing=False,
        )
