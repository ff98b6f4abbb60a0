"""The evidence of a chaos run, kept by the database itself and by an append-only file: no worker can fake or forget it.

Triggers note each transition of a job at its statement, and each write of a checkpoint in the moment of its commit
(deferred), with the ledger as it stands then and the connection that wrote.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

__all__ = ["Custody", "Effect", "Evidence", "Transition", "Written", "collect", "install_recorder", "keep"]

_RECORDER = """
CREATE TABLE public.chaos_transitions (
    n bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(), job_id text, thread_id text,
    "from" text, "to" text, before bigint, after bigint, transition text, worker_before text, worker_after text,
    stalls int, failures int, code text, message text);
CREATE TABLE public.chaos_written (
    n bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(), what text, op text, thread_id text,
    ns text, checkpoint_id text, parent text, step int, job_id text, writer text,
    owner text, owner_job text, owner_epoch bigint, xid xid8);
CREATE TABLE public.chaos_workers_lost (at timestamptz DEFAULT clock_timestamp(), worker_id text, by_whom text);

CREATE FUNCTION public.chaos_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_transitions (job_id, thread_id, "from", "to", before, after, transition, worker_before,
        worker_after, stalls, failures, code, message)
    VALUES (NEW.job_id, NEW.thread_id, CASE WHEN TG_OP = 'INSERT' THEN '' ELSE OLD.state END, NEW.state,
        CASE WHEN TG_OP = 'INSERT' THEN -1 ELSE OLD.epoch END, NEW.epoch, NEW.transition,
        CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE OLD.worker_id END, NEW.worker_id, NEW.stalls, NEW.failures, NEW.code,
        NEW.message);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_made AFTER INSERT ON threadline.jobs FOR EACH ROW EXECUTE FUNCTION public.chaos_transition();
CREATE TRIGGER chaos_changed AFTER UPDATE ON threadline.jobs FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.epoch <> NEW.epoch) EXECUTE FUNCTION public.chaos_transition();

CREATE FUNCTION public.chaos_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
    j threadline.jobs;
BEGIN
    SELECT * INTO j FROM threadline.jobs WHERE thread_id = r ->> 'thread_id' AND state = 'running';
    INSERT INTO public.chaos_written (what, op, thread_id, ns, checkpoint_id, parent, step, job_id, writer, owner,
        owner_job, owner_epoch, xid)
    SELECT TG_TABLE_NAME, TG_OP, r ->> 'thread_id', r ->> 'checkpoint_ns', r ->> 'checkpoint_id',
        r ->> 'parent_checkpoint_id', (r -> 'metadata' ->> 'step')::int, r -> 'metadata' ->> 'job_id',
        current_setting('application_name'), j.worker_id, j.job_id, j.epoch,
        pg_current_xact_id();
    RETURN NULL;
END $$;
CREATE FUNCTION public.chaos_restored() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_written (what, op, thread_id, ns, checkpoint_id, xid, job_id, writer)
    VALUES ('threads', 'RESTORED', NEW.thread_id, '', '', pg_current_xact_id(), OLD.restoring,
        current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_restored AFTER UPDATE OF restoring ON threadline.threads FOR EACH ROW
    WHEN (OLD.restoring IS NOT NULL AND NEW.restoring IS NULL) EXECUTE FUNCTION public.chaos_restored();
CREATE CONSTRAINT TRIGGER chaos_written AFTER INSERT OR UPDATE ON threadline.checkpoints
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.chaos_write();
CREATE CONSTRAINT TRIGGER chaos_written AFTER INSERT OR UPDATE ON threadline.checkpoint_writes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.chaos_write();
CREATE TRIGGER chaos_deleted AFTER DELETE ON threadline.checkpoints FOR EACH ROW EXECUTE FUNCTION public.chaos_write();

CREATE FUNCTION public.chaos_worker_lost() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_workers_lost (worker_id, by_whom)
    VALUES (OLD.worker_id, current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_lost AFTER DELETE ON threadline.workers FOR EACH ROW EXECUTE FUNCTION public.chaos_worker_lost();
"""


class Transition(NamedTuple):
    """A change of a job's row; times are seconds since the epoch."""

    n: int
    at: float
    job_id: str
    thread_id: str
    from_state: str
    to_state: str
    before: int
    after: int
    transition: str
    worker_before: str | None
    worker_after: str | None
    stalls: int
    failures: int
    code: str | None
    message: str | None


class Written(NamedTuple):
    """A write of a run, with the ledger's word on the thread at the moment of its commit."""

    n: int
    at: float
    what: str
    op: str
    thread_id: str
    ns: str
    checkpoint_id: str
    parent: str | None
    step: int | None
    job_id: str | None
    writer: str
    owner: str | None
    owner_job: str | None
    owner_epoch: int | None
    xid: str


class Effect(NamedTuple):
    """A node that ran: `end` is None where its process died in it."""

    thread: str
    job: str
    node: str
    ns: str
    step: int
    pid: int
    begin: float
    end: float | None


class Custody(NamedTuple):
    """A worker had a job, from its claim to whatever ended that (None: not yet)."""

    job_id: str
    thread_id: str
    pid: int
    epoch: int
    begin: float
    end: float | None
    ended_by: str


@dataclass
class Evidence:
    """All of it."""

    jobs: dict[str, dict[str, Any]]
    transitions: list[Transition]
    written: list[Written]
    workers_lost: list[tuple[float, str, str]]
    effects: list[Effect]
    checkpoints: list[dict[str, Any]]
    restoring: list[str]
    #: job → whether the cancel that was asked for is a rollback
    cancels: dict[str, bool]
    dead_letters: list[dict[str, Any]]
    custodies: list[Custody] = field(default_factory=list)
    #: The ids of hostile messages that reached the queue.
    hostile: list[str] = field(default_factory=list)
    #: The same by (job, pid).
    of: dict[tuple[str, int], list[Custody]] = field(default_factory=dict)


def install_recorder(database_url: str) -> None:
    """Before the first job."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_RECORDER)


def collect(database_url: str, effects: Path) -> Evidence:
    """Everything that was noted, in order."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:

        def rows(query: str) -> list[dict[str, Any]]:
            return connection.execute(query.encode()).fetchall()

        at = "*, extract(epoch FROM at)::float8 AS at"
        evidence = Evidence(
            jobs={row["job_id"]: row for row in rows("SELECT * FROM threadline.jobs ORDER BY seq")},
            transitions=[Transition(*row.values()) for row in rows(_ordered("chaos_transitions", Transition._fields))],
            written=[Written(*row.values()) for row in rows(_ordered("chaos_written", Written._fields))],
            workers_lost=[
                (row["at"], row["worker_id"], row["by_whom"])
                for row in rows(f"SELECT {at} FROM public.chaos_workers_lost ORDER BY 1")
            ],
            effects=_effects(effects),
            checkpoints=rows(
                "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,"
                " (metadata->>'step')::int AS step, metadata->>'job_id' AS job_id"
                " FROM threadline.checkpoints ORDER BY checkpoint_id"
            ),
            restoring=[r["thread_id"] for r in rows("SELECT * FROM threadline.threads WHERE restoring IS NOT NULL")],
            cancels={r["job_id"]: r["rollback"] for r in rows("SELECT * FROM threadline.cancel_requests")},
            dead_letters=rows("SELECT message_id, reason FROM threadline.dead_letters"),
        )
    evidence.custodies = _custodies(evidence.transitions)
    for custody in evidence.custodies:
        evidence.of.setdefault((custody.job_id, custody.pid), []).append(custody)
    return evidence


def keep(evidence: Evidence, file: Path) -> None:
    """As JSON, for who looks into a violation later."""
    dump = {name: getattr(evidence, name) for name in ("jobs", "transitions", "written", "workers_lost", "checkpoints")}
    tables = {
        name: [row._asdict() if hasattr(row, "_asdict") else row for row in rows] if isinstance(rows, list) else rows
        for name, rows in dump.items()
    }
    file.write_text(json.dumps(tables, default=str, indent=1))


def _ordered(table: str, fields: tuple[str, ...]) -> str:
    names = {"from_state": '"from"', "to_state": '"to"', "at": "extract(epoch FROM at)::float8", "xid": "xid::text"}
    return f"SELECT {', '.join(f'{names.get(name, name)} AS {name}' for name in fields)} FROM public.{table} ORDER BY n"


def _effects(file: Path) -> list[Effect]:
    found: list[Effect] = []
    open_ones: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for text in file.read_text().splitlines() if file.exists() else []:
        line = json.loads(text)
        key = (line["thread"], line["job"], line["node"], line["ns"], line["step"], line["pid"])
        if line["what"] == "begin":
            open_ones[key].append(len(found))
            found.append(Effect(*key, begin=line["at"], end=None))
        else:
            number = open_ones[key].pop()
            found[number] = found[number]._replace(end=line["at"])
    return found


def _custodies(transitions: list[Transition]) -> list[Custody]:
    found: list[Custody] = []
    running: dict[str, int] = {}
    for change in transitions:
        if change.from_state == "running" and change.job_id in running:
            if change.to_state == "running":  # P3: the same claim with a lifted epoch
                continue
            number = running.pop(change.job_id)
            found[number] = found[number]._replace(end=change.at, ended_by=change.transition)
        if change.to_state == "running":
            assert change.worker_after is not None
            pid = int(change.worker_after.split("-")[-2])
            running[change.job_id] = len(found)
            found.append(Custody(change.job_id, change.thread_id, pid, change.after, change.at, None, ""))
    return found
