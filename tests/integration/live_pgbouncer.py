"""Workers and clients behind a real PgBouncer in transaction mode, with the worker's own session past it.

Not collected by itself, for it needs the program, on PATH or in PGBOUNCER:
`python -m pytest tests/integration/live_pgbouncer.py`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.desk import LedgerView
from support.gates import Gates, until
from support.pgbouncer import Pooler, pgbouncer
from threadline import Client, JobCancelled
from threadline.settings import ClientSettings

SIZE = 4


@pytest.fixture
def pooler(database_url: str) -> Iterator[Pooler]:
    with pgbouncer(database_url, size=SIZE) as made:
        yield made


@pytest.fixture
def behind(env: dict[str, str], pooler: Pooler, database_url: str) -> dict[str, str]:
    return {**env, "DATABASE_URL": pooler.url, "THREADLINE_DATABASE_DIRECT_URL": database_url}


def with_schema(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER ROLE postgres IN DATABASE "{name}" SET search_path = threadline, public'.encode())


def start(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "threadline.cli", "worker"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_a_role_without_the_schema_is_refused_at_the_start(behind: dict[str, str]) -> None:
    ended = start(behind)
    assert ended.returncode == 2, ended.stderr
    assert 'ALTER ROLE "postgres" SET search_path = threadline, public' in ended.stderr


def test_a_pooler_without_the_way_past_it_is_refused(behind: dict[str, str]) -> None:
    del behind["THREADLINE_DATABASE_DIRECT_URL"]
    ended = start({**behind, "THREADLINE_DATABASE_POOLER": "transaction"})
    assert ended.returncode == 2, ended.stderr
    assert "set THREADLINE_DATABASE_DIRECT_URL" in ended.stderr


async def test_jobs_run_die_and_are_cancelled_behind_it(pooler, behind, workers, database_url, capsys) -> None:
    with_schema(database_url)
    pooler.reconnect()
    gates, view = Gates(behind), LedgerView(database_url)
    behind["THREADLINE_CORPUS"] = str(Path(__file__).parents[2] / "docs")
    crew = [workers(**behind, THREADLINE_LEASE_SECONDS="4") for _ in range(2)]
    settings = ClientSettings(redis_url=behind["REDIS_URL"], database_url=pooler.url, pooled=True)
    async with Client(settings=settings) as client:
        jobs = [await client.enqueue("steps", {"done": [], "until": 8}) for _ in range(40)]
        begun = time.monotonic()
        results = await asyncio.gather(*(job.result(timeout=60) for job in jobs))
        seconds = time.monotonic() - begun
        assert all(result == {"done": list(range(8)), "until": 8} for result in results)
        researched = await client.enqueue("research", "How are dead workers found?")  # its memories are in the store
        assert "report" in await researched.result(timeout=60)
        assert view.rows("SELECT count(*) AS n FROM store")[0]["n"]
        pooled = pooler.servers()
        assert pooled <= SIZE

        gates.close("k", 2)
        job = await client.enqueue("steps", {"done": [], "until": 4}, thread_id="k")
        pid = (await gates.begun("k", 2)).pid
        victim = next(one for one in crew if one.pid == pid)
        old = "SELECT min(clock_timestamp() - started_at) > '4.5 s' AND bool_and(lock_ok) AS old FROM workers"
        await until(lambda: view.rows(old)[0]["old"], "all hold their locks and are older than the lease")
        killed = time.monotonic()
        victim.signal(signal.SIGKILL)
        gates.open("k", 2)
        await gates.begun("k", 2, times=2)
        pickup = time.monotonic() - killed
        assert await job.result(timeout=20) == {"done": [0, 1, 2, 3], "until": 4}

        gates.close("c", 1)
        cancelled = await client.enqueue("steps", {"done": [], "until": 4}, thread_id="c")
        await gates.begun("c", 1)
        await cancelled.cancel()
        with pytest.raises(JobCancelled):
            await cancelled.result(timeout=20)
    with capsys.disabled():
        print(f"\n40 jobs of 8 steps: {seconds:.1f} s, {pooled} pooled connections; pick-up {pickup:.2f} s")  # noqa: T201
    assert pickup < 3
    assert not [entry for one in crew for entry in one.entries if entry.get("level") == "error"]
