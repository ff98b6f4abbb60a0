"""Servers come and go: running jobs go on, nothing is lost, and the worker says what it waits for."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from support.desk import LedgerView
from support.gates import Gates, until
from support.servers import ServerControl, controlled_servers
from support.workers import Workers
from threadline import Client
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "2"}


@pytest.fixture(scope="module")
def control():
    with controlled_servers() as made:
        yield made


@pytest.fixture
async def own(control: ServerControl, env):
    """The test's environment on servers that it may break."""
    async with Database(control.urls.database_url, application_name="tests", limit=60) as database:
        await migrate_all(database, Keys())
    return {**env, **QUICK, "REDIS_URL": control.urls.redis_url, "DATABASE_URL": control.urls.database_url}


@pytest.fixture
def started(own):
    with Workers(own) as workers:
        yield workers.start


@pytest.fixture
async def client(own):
    async with Client(redis_url=own["REDIS_URL"], database_url=own["DATABASE_URL"]) as made:
        yield made


async def test_redis_killed_and_back_empty_while_a_job_runs(control, own, started, client) -> None:
    gates = Gates(own)
    worker = started()
    gates.close("r", 1)
    gates.close("r", 3)
    job = await client.enqueue("steps", {"done": [], "until": 5}, thread_id="r")
    await gates.begun("r", 1)
    control.kill_redis()
    gates.open("r", 1)  # two steps without Redis: checkpoints do not need it
    await gates.begun("r", 3)
    # Enqueued while Redis is away: accepted, and runs when it is back.
    waiting = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="w")
    control.restart_redis()
    gates.open("r", 3)
    assert await job.result(timeout=15) == {"done": [0, 1, 2, 3, 4], "until": 5}
    assert await waiting.result(timeout=15) == {"done": [0], "until": 1}
    assert gates.steps("r") == [0, 1, 2, 3, 4]
    assert worker.process.poll() is None
    # What the empty Redis no longer has is marked; what came later is there, in order, up to the end.
    events = [event async for event in job.events()]
    assert events[-1].type == "succeeded"
    steps = [event for event in events if event.type == "updates"]
    assert steps[-1].data == {"step": {"done": [4]}}
    assert "gap" in [event.type for event in events] or len(steps) == 5
    assert worker.terminate() == 0


async def test_postgres_restarted_at_once_while_jobs_run(control, own, started, client) -> None:
    gates, view = Gates(own), LedgerView(own["DATABASE_URL"])
    worker = started()
    threads = [f"p{number}" for number in range(3)]
    jobs = []
    for thread in threads:
        gates.close(thread, 1)
        jobs.append(await client.enqueue("steps", {"done": [], "until": 4}, thread_id=thread))
    for thread in threads:
        await gates.begun(thread, 1)
    control.stop_postgres("immediate")
    gates.open("p0", 1)  # meets a database that is not there
    worker.logged("job.failed")
    control.restart_postgres()
    gates.open("p1", 1)
    gates.open("p2", 1)
    for thread, job in zip(threads, jobs, strict=True):
        await until(lambda j=job: view.job(j.job_id)["state"] == "succeeded" or None, f"{thread} has succeeded")
        steps = gates.steps(thread)
        assert [steps.count(number) for number in (0, 2, 3)] == [1, 1, 1]
        assert steps.count(1) <= 2  # in flight
        assert view.job(job.job_id)["failures"] == 0  # the outage is charged to nobody
    assert worker.process.poll() is None
    assert "worker.declared_dead" not in worker.seen()
    assert worker.terminate() == 0


async def test_a_worker_drains_in_time_while_postgres_is_away(control, own, started, client, tmp_path) -> None:
    gates, view = Gates(own), LedgerView(own["DATABASE_URL"])
    (tmp_path / "sitecustomize.py").write_text("import threadline_worker.main as m\nm._LAST_WORDS_SECONDS = 2.0\n")
    worker = started(THREADLINE_DRAIN_SECONDS="1", PYTHONPATH=f"{tmp_path}:{own['PYTHONPATH']}")
    gates.close("d", 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="d")
    await gates.begun("d", 1)
    control.stop_postgres("immediate")
    worker.process.terminate()
    worker.logged("worker.draining")
    assert worker.process.wait(20) == 0
    control.restart_postgres()
    gates.open("d", 1)
    started()
    await until(lambda: view.job(job.job_id)["state"] == "succeeded" or None, "another has gone on with it")
    assert gates.steps("d") == [0, 1, 1, 2]
    assert view.job(job.job_id)["failures"] == 0


def short_of_patience(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A worker that waits two seconds for its servers, not thirty."""
    program = (
        "import sys; import threadline_worker.backends as b; b.wait_for_servers.__kwdefaults__['limit'] = 2.0;"
        "from threadline.cli import main; sys.argv = ['threadline', 'worker']; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("server", ["Redis", "Postgres"])
def test_unreachable_at_the_start_is_tried_again_and_then_exit_4(env, server) -> None:
    name, nobody = ("REDIS_URL", "redis://:hush@127.0.0.1:9/0")
    if server == "Postgres":
        name, nobody = ("DATABASE_URL", "postgresql://me:hush@127.0.0.1:9/db")
    started = time.monotonic()
    done = short_of_patience({**env, name: nobody})
    assert time.monotonic() - started < 15
    assert done.returncode == 4
    assert done.stderr.count("worker.waiting_for") >= 2
    last = done.stderr.splitlines()[-1]
    assert server in last
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr


def test_not_migrated_says_what_to_run(env, empty_database_url) -> None:
    done = short_of_patience({**env, "DATABASE_URL": empty_database_url})
    assert done.returncode == 4
    assert "`threadline migrate`" in done.stderr.splitlines()[-1]
    assert "waiting_for" not in done.stderr
