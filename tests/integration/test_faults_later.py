"""Servers that begin to refuse while a worker runs: /readyz says why, no job is charged, all goes on once it is mended.

One worker lives through all of it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from support.chaos_processes import package_roots
from support.desk import LedgerView
from support.gates import Gates, until
from support.servers import ServerControl, controlled_servers
from support.workers import WorkerHandle, Workers
from threadline import Client
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all

ROLE = "app"
PASSWORD = "hunter2"
#: A blip shall not turn /readyz red, which takes 5 s in earnest.
IMPATIENT = """
import threadline_worker.health, threadline_worker.outcome, threadline_worker.refusals
threadline_worker.outcome._BACKOFF_FIRST = 0.1
threadline_worker.health._AWAY_SECONDS = 1.0
threadline_worker.refusals.REFUSED_SECONDS = 1.0
"""
GRANTS = f"""
DROP ROLE IF EXISTS {ROLE};
CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';
GRANT USAGE ON SCHEMA threadline TO {ROLE};
GRANT ALL ON ALL TABLES IN SCHEMA threadline TO {ROLE};
GRANT ALL ON ALL SEQUENCES IN SCHEMA threadline TO {ROLE};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA threadline TO {ROLE};
"""
#: What the server itself says when its disk is full, in its words and with its SQLSTATE.
FULL_DISK = """
CREATE FUNCTION threadline.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file "base/5/16384": No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON threadline.checkpoints EXECUTE FUNCTION threadline.full_disk()
"""


@pytest.fixture(scope="module")
def control() -> Iterator[ServerControl]:
    with controlled_servers() as made:
        yield made


@pytest.fixture(scope="module")
def own(control: ServerControl, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    asyncio.run(migrated(control))
    admin(control, GRANTS)
    parts = urlsplit(control.urls.database_url)
    return {
        "PATH": os.environ["PATH"],
        "REDIS_URL": control.urls.redis_url,
        "DATABASE_URL": parts._replace(netloc=f"{ROLE}:{PASSWORD}@{parts.hostname}:{parts.port}").geturl(),
        "PYTHONPATH": os.pathsep.join([str(folder), *package_roots(), str(Path(__file__).parents[1])]),
        "THREADLINE_AGENTS": "steps=support.graphs:steps",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_LOG_FORMAT": "json",
        "THREADLINE_HEARTBEAT_SECONDS": "0.25",
        "THREADLINE_LEASE_SECONDS": "2",
        "TEST_GATES": str(folder / "gates"),
    }


@pytest.fixture(scope="module")
def worker(own: dict[str, str]) -> Iterator[WorkerHandle]:
    with Workers(own) as started:
        made = started.start()
        yield made
        assert made.terminate() == 0
        assert PASSWORD not in "".join(made.lines)


@pytest.fixture
async def client(control: ServerControl) -> AsyncIterator[Client]:
    """The superuser's: what a test does to the worker's role is not done to it."""
    async with Client(redis_url=control.urls.redis_url, database_url=control.urls.database_url) as made:
        yield made


async def migrated(control: ServerControl) -> None:
    async with Database(control.urls.database_url, application_name="tests", limit=60) as database:
        await migrate_all(database, Keys())


def admin(control: ServerControl, statements: str) -> None:
    """As the superuser, also where the server's default is read-only; each statement by itself (ALTER SYSTEM)."""
    options = "-c default_transaction_read_only=off"
    with psycopg.connect(control.urls.database_url, autocommit=True, options=options) as connection:
        for statement in [statements] if "$$" in statements or "GRANT" in statements else statements.split(";"):
            connection.execute(statement.encode())


def as_redis(control: ServerControl, *command: str) -> Any:
    with redis.Redis.from_url(control.urls.redis_url) as connection:
        return connection.execute_command(*command)


async def red(worker: WorkerHandle, *says: str) -> None:
    """Wait until /readyz gives a reason with these words."""

    def look() -> bool:
        code, reasons = worker.status("readyz")
        return code == 503 and any(all(words in reason for words in says) for reason in reasons)

    await until(look, f"/readyz is red with {says}, not {worker.status('readyz')}", limit=10)


async def green(worker: WorkerHandle) -> None:
    await until(lambda: worker.status("readyz")[0] == 200, "/readyz is green again")


Hurt = Callable[[ServerControl], None]


def locked_out(control: ServerControl) -> None:
    admin(control, f"ALTER ROLE {ROLE} PASSWORD 'rotated'")
    admin(control, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")


def into_a_standby(control: ServerControl) -> None:
    """What a client meets after a failover that went the other way: the same address, a server in recovery."""
    control.stop_postgres("fast")
    (control.postgres._cluster / "standby.signal").touch()
    control.restart_postgres()


def read_only(control: ServerControl) -> None:
    admin(control, "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")


POSTGRES: dict[str, tuple[Hurt, Hurt, tuple[str, ...]]] = {
    "password": (
        locked_out,
        lambda control: admin(control, f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'"),
        ("password authentication failed", "correct user and password in DATABASE_URL"),
    ),
    "right": (
        lambda control: admin(control, f"REVOKE INSERT ON threadline.checkpoints FROM {ROLE}"),
        lambda control: admin(control, f"GRANT INSERT ON threadline.checkpoints TO {ROLE}"),
        ("lacks INSERT on threadline.checkpoints", "deploy/postgres/grants.sql"),
    ),
    "read_only": (
        read_only,
        lambda control: admin(control, "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()"),
        ("takes no writes", "point DATABASE_URL at the primary"),
    ),
    "standby": (
        into_a_standby,
        lambda control: admin(control, "SELECT pg_promote()"),
        ("Postgres", "point DATABASE_URL at the primary"),
    ),
    "disk": (
        lambda control: admin(control, FULL_DISK),
        lambda control: admin(control, "DROP FUNCTION threadline.full_disk() CASCADE"),
        ("No space left on device", "free space"),
    ),
}


class SmallDisk:
    """The table of checkpoints on a file system of 8 MiB of its own, which only root can mount."""

    def __init__(self) -> None:
        self.folder = Path("/var/tmp") / f"threadline-small-{secrets.token_hex(4)}"

    def fill(self, control: ServerControl) -> None:
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.folder], check=True)
        data = self.folder / "data"
        data.mkdir()
        owner = control.postgres._cluster.stat()
        os.chown(data, owner.st_uid, owner.st_gid)
        admin(control, f"CREATE TABLESPACE small LOCATION '{data}'")
        # Nothing shall fit into pages that are there already.
        admin(control, "ALTER TABLE threadline.checkpoints SET (fillfactor = 10)")
        admin(control, "ALTER TABLE threadline.checkpoints SET TABLESPACE small")
        admin(control, "VACUUM FULL threadline.checkpoints")
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(b"0" * 4096):
                pass

    def free(self, _control: ServerControl) -> None:
        (self.folder / "ballast").unlink()

    def remove(self, control: ServerControl) -> None:
        admin(control, "ALTER TABLE threadline.checkpoints SET TABLESPACE pg_default")
        admin(control, "DROP TABLESPACE small")
        subprocess.run(["umount", self.folder], check=True)
        self.folder.rmdir()


@pytest.mark.skipif("FAULTS_WITH_MOUNTS" not in os.environ, reason="mounts a file system: root, FAULTS_WITH_MOUNTS=1")
async def test_a_job_survives_a_disk_that_is_really_full(
    control: ServerControl, own: dict[str, str], worker: WorkerHandle, client: Client
) -> None:
    disk = SmallDisk()
    POSTGRES["small_disk"] = (disk.fill, disk.free, ("No space left on device", "free space"))
    try:
        await test_F5_a_job_survives_a_postgres_that_refuses("small_disk", control, own, worker, client)
    finally:
        del POSTGRES["small_disk"]
        disk.remove(control)


@pytest.mark.parametrize("fault", POSTGRES)
async def test_F5_a_job_survives_a_postgres_that_refuses(
    fault: str, control: ServerControl, own: dict[str, str], worker: WorkerHandle, client: Client
) -> None:
    hurt, mend, says = POSTGRES[fault]
    gates, view, thread = Gates(own), LedgerView(control.urls.database_url), f"{fault}-{secrets.token_hex(2)}"
    await green(worker)
    gates.close(thread, 1)
    job = await client.enqueue("steps", {"done": [], "until": 4}, thread_id=thread)
    await gates.begun(thread, 1)
    hurt(control)
    try:
        gates.open(thread, 1)  # the step's result meets the fault
        await red(worker, *says)
        assert view.job(job.job_id)["state"] in {"running", "queued"}
    finally:
        mend(control)
    await until(lambda: view.job(job.job_id)["state"] == "succeeded", f"the job goes on: {view.job(job.job_id)}")
    assert view.job(job.job_id)["failures"] == 0
    assert view.job(job.job_id)["stalls"] == 0
    steps = gates.steps(thread)
    assert [steps.count(number) for number in (0, 2, 3)] == [1, 1, 1]
    await green(worker)
    assert worker.process.poll() is None


#: What a value that is too large for the server's memory, or a broken page, does to the one thread that has it.
GREEDY = """
CREATE FUNCTION threadline.greedy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.thread_id LIKE 'greedy%' AND NEW.metadata ->> 'step' = '1' THEN
        RAISE EXCEPTION 'out of memory' USING ERRCODE = '53200';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER greedy BEFORE INSERT ON threadline.checkpoints FOR EACH ROW EXECUTE FUNCTION threadline.greedy()
"""


async def test_L7_what_postgres_refuses_to_one_job_alone_ends_that_job(
    control: ServerControl, own: dict[str, str], worker: WorkerHandle, client: Client
) -> None:
    gates, view, thread = Gates(own), LedgerView(control.urls.database_url), f"greedy-{secrets.token_hex(2)}"
    await green(worker)
    admin(control, GREEDY)
    try:
        job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id=thread)
        async with asyncio.timeout(60):
            while (row := view.job(job.job_id))["state"] in {"queued", "running"}:
                neighbour = await client.enqueue("steps", {"done": [], "until": 1})
                assert await neighbour.result(timeout=20) == {"done": [0], "until": 1}
    finally:
        admin(control, "DROP FUNCTION threadline.greedy() CASCADE")
    assert (row["state"], row["code"], row["failures"]) == ("failed", "transient", 3)
    assert "out of memory" in row["message"]
    assert gates.steps(thread).count(1) <= 8
    await green(worker)


def snapshot(control: ServerControl) -> Path:
    return Path(*(as_redis(control, "CONFIG", "GET", name)[1].decode() for name in ("dir", "dbfilename")))


def no_place_to_save(control: ServerControl) -> None:
    """A folder stands where the snapshot belongs: saving fails as it does on a full disk."""
    snapshot(control).mkdir()
    as_redis(control, "CONFIG", "SET", "save", "3600 1")
    as_redis(control, "BGSAVE")


def a_place_to_save(control: ServerControl) -> None:
    snapshot(control).rmdir()
    as_redis(control, "SAVE")
    as_redis(control, "CONFIG", "SET", "save", "")


REDIS: dict[str, tuple[Hurt, Hurt, tuple[str, ...]]] = {
    "full": (
        lambda control: as_redis(control, "CONFIG", "SET", "maxmemory", "1"),
        lambda control: as_redis(control, "CONFIG", "SET", "maxmemory", "0"),
        ("used memory > 'maxmemory'", "raise `maxmemory`"),
    ),
    "replica": (
        lambda control: as_redis(control, "REPLICAOF", "127.0.0.1", "9"),
        lambda control: as_redis(control, "REPLICAOF", "NO", "ONE"),
        ("read only replica", "point REDIS_URL at the primary"),
    ),
    "disk": (no_place_to_save, a_place_to_save, ("persist", "free space on its disk")),
    "right": (
        lambda control: as_redis(control, "ACL", "SETUSER", "default", "-publish"),
        lambda control: as_redis(control, "ACL", "SETUSER", "default", "+@all"),
        ("no permissions to run the 'publish' command", "deploy/redis/users.acl"),
    ),
}


@pytest.mark.parametrize("fault", REDIS)
async def test_a_job_goes_on_while_redis_refuses(
    fault: str, control: ServerControl, own: dict[str, str], worker: WorkerHandle, client: Client
) -> None:
    hurt, mend, says = REDIS[fault]
    gates, view, thread = Gates(own), LedgerView(control.urls.database_url), f"r-{fault}-{secrets.token_hex(2)}"
    await green(worker)
    gates.close(thread, 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id=thread)
    await gates.begun(thread, 1)
    hurt(control)
    try:
        gates.open(thread, 1)
        await until(lambda: view.job(job.job_id)["state"] == "succeeded", "it needs no Redis")
        await red(worker, *says)
        waiting = await client.enqueue("steps", {"done": [], "until": 1})  # accepted all the same
    finally:
        mend(control)
    assert await waiting.result(timeout=20) == {"done": [0], "until": 1}
    assert [view.job(one.job_id)["failures"] for one in (job, waiting)] == [0, 0]
    await green(worker)
    assert worker.process.poll() is None


async def test_the_worker_has_declared_nobody_dead(worker: WorkerHandle) -> None:
    assert "worker.declared_dead" not in worker.seen()
    assert "worker.dead" not in worker.seen()
    worker.signal(signal.SIGCONT)  # it lives
