"""What can be wrong with Postgres, the schema and those who use it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from threadline.cli.describe import age
from threadline.cli.doctor.check import Check, Level
from threadline.encryption import places
from threadline.errors import BackendUnavailable, CannotDecrypt, ConfigurationError, NotMigrated
from threadline.ledger.database import Database, speaking
from threadline.ledger.migrate import LATEST, check_migrated
from threadline.ledger.sql import Queries
from threadline.settings import ClientSettings

__all__ = [
    "check_database",
    "judge_graphs",
    "judge_ledger",
    "judge_queues",
    "judge_rights",
    "judge_server",
    "judge_skew",
    "judge_webhooks",
    "judge_workers",
]

_LEAST: Final = 140_000
#: A worker whose clock is further off refuses to claim (design.md F4).
_REFUSED_SECONDS: Final = 5.0
_NOTED_SECONDS: Final = 1.0
_WAITED_SECONDS: Final = 60.0
_LIMIT_SECONDS: Final = 10.0
_ROUND_TRIPS: Final = 3
_DEPLOY: Final = "nothing while a deploy is under way; else restart the workers that were forgotten"


async def check_database(settings: ClientSettings) -> list[Check]:
    """All findings about the Postgres of the settings."""
    if not settings.database_url:
        advice = "set DATABASE_URL; Redis alone can only enqueue, watch and await results"
        return [
            Check(
                "postgres",
                Level.WARN if settings.redis_url else Level.FAIL,
                "DATABASE_URL is not set",
                advice,
                unavailable=True,
            )
        ]
    try:
        database = Database(
            settings.database_url,
            application_name="threadline-doctor",
            limit=_LIMIT_SECONDS,
            **settings.statements,
        )
        connection = await database.connect()
    except (BackendUnavailable, ConfigurationError) as error:
        return [Check("postgres", Level.FAIL, str(error), "start it, or mend DATABASE_URL", unavailable=True)]
    found: list[Check] = []
    try:
        async with connection, speaking(_LIMIT_SECONDS):
            queries = Queries(settings.keys.schema, settings.keys.checkpoints)
            found += await _server(connection, queries)
            found += await _schema(connection, queries, settings)
    except BackendUnavailable as error:
        advice = "let this user read the schema, or look at the server's log"
        found.append(Check("postgres", Level.FAIL, str(error), advice, unavailable=True))
    return found


async def _server(connection: AsyncConnection[DictRow], queries: Queries) -> list[Check]:
    row = await _row(connection, queries, "doctor_server")
    skews = []
    for _ in range(_ROUND_TRIPS):
        before = time.time()
        measured = await _row(connection, queries, "doctor_clock")
        after = time.time()
        skews.append((after - before, measured["now"] - (before + after) / 2))
    round_trip, skew = min(skews)
    return [*judge_server(row), judge_skew(skew, round_trip / 2)]


async def _schema(connection: AsyncConnection[DictRow], queries: Queries, settings: ClientSettings) -> list[Check]:
    try:
        version = await check_migrated(connection, settings.keys)
    except NotMigrated as error:
        seen, _colon, advice = str(error).rpartition(": ")
        return [Check("schema", Level.FAIL, seen, advice, unavailable=True)]
    tables = await _row(connection, queries, "doctor_tables")
    missing = [name for name, there in tables.items() if not there]
    found = [
        Check(
            "schema",
            Level.OK,
            f"version {version}" + (f", newer than this code's {LATEST}" if version > LATEST else ""),
        )
    ]
    if missing:
        seen = f"LangGraph's tables are missing: {', '.join(missing)}"
        found.append(Check("checkpoints", Level.FAIL, seen, "run `threadline migrate`", unavailable=True))
    else:
        where = f", checkpoints in schema {settings.keys.adopted}" if settings.keys.adopted else ""
        found.append(Check("checkpoints", Level.OK, f"LangGraph's tables are there{where}"))
    found.append(judge_rights(await _row(connection, queries, "worker_rights")))
    cursor = await connection.execute(queries["doctor_workers"], {"lease_seconds": settings.lease_seconds})
    workers = await cursor.fetchall()
    ledger = await _row(connection, queries, "doctor_ledger")
    webhooks = await _row(connection, queries, "doctor_webhooks")
    cursor = await connection.execute(queries["doctor_queues"], {"lease_seconds": settings.lease_seconds})
    queues = judge_queues(await cursor.fetchall(), settings.queues.names)
    cursor = await connection.execute(queries["doctor_graphs"], {"lease_seconds": settings.lease_seconds})
    graphs = judge_graphs(await cursor.fetchall())
    judged = [
        *judge_workers(workers),
        *graphs,
        *queues,
        *judge_ledger(_opened(ledger, settings)),
        judge_webhooks(webhooks),
    ]
    return [*found, *judged]


async def _row(connection: AsyncConnection[DictRow], queries: Queries, name: str) -> DictRow:
    row = await (await connection.execute(queries[name])).fetchone()
    assert row is not None  # noqa: S101 - these queries always have one row
    return row


def judge_server(row: DictRow) -> list[Check]:
    """Findings from a row of doctor_server.sql."""
    version = Check("postgres version", Level.OK, f"Postgres {row['version']}")
    if (encoding := row.get("encoding", "UTF8")) != "UTF8":
        advice = "make a database with `createdb --encoding=UTF8 --template=template0`, and name it in DATABASE_URL"
        version = Check("postgres version", Level.FAIL, f"the database has the encoding {encoding}", advice)
    if row["version_number"] < _LEAST:
        version = Check("postgres version", Level.FAIL, f"Postgres {row['version']}", "use Postgres 14 or newer")
    if row["read_only"] and row["observing"] and not row["in_recovery"]:
        return [version, Check("postgres role", Level.OK, "read-only by the rights of this role, an observer")]
    if row["in_recovery"] or row["read_only"]:
        seen = "a standby" if row["in_recovery"] else "its transactions are read-only"
        return [version, Check("postgres role", Level.FAIL, seen, "point DATABASE_URL at the primary")]
    return [version, Check("postgres role", Level.OK, "read-write")]


def judge_rights(row: DictRow) -> Check:
    """The finding from a row of worker_rights.sql: what a worker needs, a producer or an observer shall not have."""
    if not (missing := row["missing"]):
        return Check("postgres rights", Level.OK, f"a worker can run as {row['role']}")
    seen = f"no worker can run as {row['role']}: it lacks {', '.join(missing[:3])}" + (" …" if missing[3:] else "")
    return Check("postgres rights", Level.INFO, seen, "if it is the workers' role: apply deploy/postgres/grants.sql")


def judge_skew(skew: float, uncertain: float) -> Check:
    """The finding from this machine's distance to the database's clock, give or take `uncertain` seconds."""
    seen = (
        f"this machine is {abs(skew):.3f} s {'behind' if skew > 0 else 'ahead of'} the database (± {uncertain:.3f} s)"
    )
    if abs(skew) > _REFUSED_SECONDS:
        return Check("clock", Level.FAIL, seen, "synchronise the clocks (NTP); a worker here refuses to claim jobs")
    if abs(skew) > _NOTED_SECONDS:
        return Check("clock", Level.WARN, seen, "synchronise the clocks (NTP); from 5 s on a worker refuses to claim")
    return Check("clock", Level.OK, seen)


def judge_workers(rows: list[DictRow]) -> list[Check]:
    """Findings from the rows of doctor_workers.sql."""
    alive = [row for row in rows if row["alive"]]
    if not alive:
        silent = f"; {len(rows)} silent" if rows else ""
        return [
            Check("workers", Level.WARN, f"none alive{silent}", "start one: `threadline worker` (or `threadline dev`)")
        ]
    found = [Check("workers", Level.OK, f"{len(alive)} alive: " + "; ".join(map(_worker, alive)))]
    if unlocked := [row["worker_id"] for row in alive if not row["lock_ok"]]:
        advice = "set THREADLINE_DATABASE_DIRECT_URL: behind a transaction pooler the dead are found after the lease"
        found.append(Check("worker locks", Level.WARN, f"no session lock is seen of {', '.join(unlocked)}", advice))
    return found


def judge_graphs(rows: list[DictRow]) -> list[Check]:
    """Findings from the rows of doctor_graphs.sql: agents that are not the same graph on all live workers."""
    return [Check(f"graph {row['name']}", Level.WARN, _graphs(row), _DEPLOY) for row in rows]


def _graphs(row: DictRow) -> str:
    return "; ".join(f"{word} on {', '.join(workers)}" for word, workers in row["graphs"].items())


def _worker(row: DictRow) -> str:
    agents = ", ".join(sorted(row["agents"])) or "no agents"
    draining = ", draining" if row["draining"] else ""
    return f"{row['worker_id']} ({agents}; beat {row['beat_age']:.1f} s ago{draining})"


def judge_queues(rows: list[DictRow], mapped: Sequence[str]) -> list[Check]:
    """Findings from the rows of doctor_queues.sql and the queues that THREADLINE_QUEUES names here.

    Without any live worker there is none: that is told already, and of every queue true.
    """
    if not any(row["workers"] for row in rows):
        return []
    due = {row["queue"]: row["due"] for row in rows if not row["workers"]}
    served = {row["queue"] for row in rows if row["workers"]}
    unserved = sorted({*due, *mapped} - served)
    if not unserved:
        return [Check("queues", Level.OK, f"all are served: {', '.join(sorted(served))}")]
    seen = ", ".join(f"{name} ({due.get(name, 0)} jobs are due)" for name in unserved)
    advice = f"start one: `threadline worker {' '.join(f'--queue {name}' for name in unserved)}`, or correct the map"
    return [Check("queues", Level.WARN, f"no live worker serves {seen}", advice)]


def _opened(row: DictRow, settings: ClientSettings) -> DictRow:
    place = places.dead_letter("reason", str(row["last_message"]))
    try:
        return {**row, "last_reason": settings.vault.open_words(row["last_reason"], place, or_plain=True)}
    except CannotDecrypt as error:
        return {**row, "last_reason": str(error)}


def judge_ledger(row: DictRow) -> list[Check]:
    """Findings from a row of doctor_ledger.sql."""
    letters = Check("dead letters", Level.OK, "none")
    if row["dead_letters"]:
        seen = f"{row['dead_letters']} messages never became jobs, the last: {row['last_reason']}"
        advice = "read the table dead_letters: who sent them, and why were they refused?"
        letters = Check("dead letters", Level.WARN, seen, advice)
    if row["oldest_job"] is None:
        return [letters, Check("queue", Level.OK, "no job is due")]
    waited = row["oldest_seconds"]
    seen = f"{row['due']} jobs are due; the oldest, {row['oldest_job']} ({row['oldest_agent']}), for {age(waited)}"
    if waited > _WAITED_SECONDS:
        return [letters, Check("queue", Level.WARN, seen, "start more workers, or see whether any runs this agent")]
    return [letters, Check("queue", Level.OK, seen)]


def judge_webhooks(row: DictRow) -> Check:
    """The finding from a row of doctor_webhooks.sql."""
    if row["held"]:
        seen = f"{row['held']} reports wait, and no worker that looked at them has a secret to sign with"
        return Check("webhooks", Level.WARN, seen, "set THREADLINE_WEBHOOK_SECRETS at the workers")
    if row["failed"]:
        seen = f"{row['failed']} reports were given up within a day"
        advice = "see `threadline status JOB` for the answer, and `threadline retry JOB --webhook` once it is mended"
        return Check("webhooks", Level.WARN, seen, advice)
    return Check("webhooks", Level.OK, f"{row['open']} reports on their way" if row["open"] else "none waits")
