"""The commands of each part do their work under its own role and user, and another part's end with one line and 4."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import yaml  # type: ignore[import-untyped]  # its stubs are a package that only deploy/ would need
from psycopg import errors

from support.chaos_processes import package_roots
from support.estate import DEPLOY, NAMESPACE, PARTS, Estate, apply_sql
from support.nursery import called
from support.workers import Workers
from threadline.contract.keys import Keys

JOB = ("enqueue", "steps", '{"done": [], "until": 1}', "--input-json")


def environment(estate: Estate, part: str, gates: str = "") -> dict[str, str]:
    found = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": estate.database[part],
        "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parents[1])]),
        "THREADLINE_NAMESPACE": NAMESPACE,
        "THREADLINE_AGENTS": "steps=support.graphs:steps",
        "THREADLINE_QUEUES": "user:bulky=bulk",
        "THREADLINE_WORKER_QUEUES": "default,bulk",
        "THREADLINE_MODEL": "offline",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_LOG_FORMAT": "json",
        "TEST_GATES": gates,
    }
    return found | ({"REDIS_URL": estate.redis[part]} if part in estate.redis else {})


def threadline(estate: Estate, part: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = called(arguments, environment(estate, part))
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def worker(estate: Estate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with Workers(environment(estate, "worker", str(tmp_path_factory.mktemp("gates")))) as started:
        started.start()
        yield started


def test_migrations_are_the_migrate_roles(estate: Estate) -> None:
    with psycopg.connect(estate.admin, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {NAMESPACE} CASCADE".encode())
    assert apply_sql(estate.admin, "roles.sql").returncode == 0
    done = threadline(estate, "migrate", "migrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert "applied 0001_ledger" in done.stdout
    assert apply_sql(estate.database["migrate"], "grants.sql").returncode == 0
    assert threadline(estate, "migrate", "migrate").stdout == "up to date\n"


@pytest.mark.parametrize("part", ["worker", "observer"])
def test_nobody_else_migrates_and_is_told_who_may(estate: Estate, part: str) -> None:
    done = threadline(estate, part, "migrate")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith(f"migrate as the role that owns schema {NAMESPACE}, on the primary\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("worker")
def test_a_producers_commands(estate: Estate) -> None:
    estate.refused()
    done = threadline(estate, "producer", *JOB, "--thread", "p", "--watch", "--json")
    assert done.returncode == 0, done.stderr
    job_id = json.loads(done.stdout.splitlines()[-1])["job_id"]
    told = {
        words: threadline(estate, "producer", *words)
        for words in [("status", job_id), ("result", job_id), ("cancel", job_id), ("jobs",), ("state", "p")]
    }
    assert {words: done.stderr for words, done in told.items() if done.returncode} == {}
    elsewhere = threadline(estate, "producer", *JOB, "--user", "bulky", "--watch")  # through a queue of its own
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert estate.refused() <= {("producer", "evalsha")}  # `queued` is told by a worker (docs/deploy.md)


@pytest.mark.usefixtures("worker")
def test_an_operators_commands_run_as_the_worker(estate: Estate) -> None:
    for user in ("gone", "bulky"):
        assert threadline(estate, "producer", *JOB, "--user", user, "--watch").returncode == 0
    estate.refused()
    told = [threadline(estate, "worker", "delete-user", user, "--yes") for user in ("gone", "bulky")]
    told += [threadline(estate, "worker", *words) for words in (("prune", "--older-than", "1s"), ("doctor",))]
    assert [done.stderr for done in told if done.returncode] == []
    assert estate.refused() <= {("worker", "config|get")}  # the doctor does without


def test_an_observer_has_nothing_but_the_doctor(estate: Estate) -> None:
    estate.refused()
    looked = threadline(estate, "observer", "doctor", "--json")
    assert looked.returncode == 0, looked.stdout
    assert estate.refused() <= {("observer", "config|get")}
    for words in (JOB, ("jobs",), ("worker", "--burst"), ("delete-user", "u", "--yes"), ("prune",)):
        done = threadline(estate, "observer", *words)
        assert done.returncode == 4, words
        line = done.stderr.splitlines()[-1]
        assert any(says in line for says in ("permission denied", "no permissions", "read-only transaction")), line


@pytest.mark.parametrize("words", [("delete-user", "u", "--yes"), ("prune",), ("worker", "--burst")], ids=" ".join)
def test_a_producer_is_no_operator_and_no_worker(estate: Estate, words: tuple[str, ...]) -> None:
    done = threadline(estate, "producer", *words)
    assert done.returncode == 4
    line = done.stderr.splitlines()[-1]
    assert any(says in line for says in ("permission denied", "no permissions")), line


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE ROLE mine",
        "ALTER ROLE {}_worker SUPERUSER",
        "ALTER ROLE {}_observer PASSWORD 'mine'",
        "CREATE DATABASE mine",
        "ALTER SYSTEM SET fsync = off",
        "COPY {}.jobs TO '/tmp/jobs'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT rolpassword FROM pg_authid",
        "CREATE TABLE public.mine (n int)",
        "SET ROLE postgres",
    ],
)
def test_who_migrates_owns_the_schema_and_nothing_else(estate: Estate, statement: str) -> None:
    with (
        psycopg.connect(estate.database["migrate"], autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(statement.replace("{}", NAMESPACE).encode())


def test_redis_knows_nobody_who_migrates(estate: Estate) -> None:
    assert set(PARTS) - set(estate.redis) == {"migrate"}
    with redis.Redis.from_url(estate.redis["admin"], decode_responses=True) as connection:
        assert set(connection.acl_users()) == {"default", "producer", "worker", "observer", "admin"}


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("producer", ("ZRANGE", Keys(NAMESPACE).queue_of("bulk"), "0", "-1")),
        ("producer", ("ZADD", Keys("other").queue_of("bulk"), "1", "x")),
        ("producer", ("ZADD", f"{NAMESPACE}:queue:health-check", "1", "x")),
        ("observer", ("ZADD", Keys(NAMESPACE).queue_of("bulk"), "1", "x")),
        ("observer", ("PUBLISH", Keys(NAMESPACE).wake_of("bulk"), "1")),
        ("worker", ("ZADD", Keys("other").queue_of("bulk"), "1", "x")),
    ],
    ids=str,
)
def test_a_queue_of_ones_own_is_as_closed_as_the_default_one(
    estate: Estate, user: str, command: tuple[str, ...]
) -> None:
    with redis.Redis.from_url(estate.redis[user]) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command)


def scaling() -> list[str]:
    """Every statement that KEDA asks the ledger, of the base and of all overlays."""
    found = []
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document.get("kind") == "ScaledObject":
                triggers = document["spec"].get("triggers", ())
                found += [trigger["metadata"]["query"] for trigger in triggers if trigger["type"] == "postgresql"]
    return found


@pytest.mark.parametrize("statement", scaling())
def test_an_observer_may_ask_what_scales_the_workers(estate: Estate, statement: str) -> None:
    ours = statement.replace("threadline.", f"{NAMESPACE}.")
    with psycopg.connect(estate.database["observer"], autocommit=True) as connection:
        row = connection.execute(ours.encode()).fetchone()
    assert row is not None
    assert float(row[0]) >= 0
