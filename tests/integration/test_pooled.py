"""What a worker and a client do differently behind a transaction pooler; the real PgBouncer is in `live_pgbouncer`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
import pytest

from support.desk import LedgerView
from threadline import Client
from threadline.calls.backends import Backends
from threadline.errors import ConfigurationError
from threadline.settings import ClientSettings
from threadline_worker.settings import WorkerSettings

URLS = {"REDIS_URL": "redis://localhost", "DATABASE_URL": "postgresql://pooler/app"}


@pytest.mark.parametrize(
    ("env", "pooled", "direct"),
    [
        ({}, False, "postgresql://pooler/app"),
        ({"THREADLINE_DATABASE_DIRECT_URL": "postgresql://db/app"}, True, "postgresql://db/app"),
        (
            {"THREADLINE_DATABASE_POOLER": "Transaction", "THREADLINE_DATABASE_DIRECT_URL": "postgresql://db/app"},
            True,
            "postgresql://db/app",
        ),
    ],
)
def test_a_direct_url_says_that_there_is_a_pooler(env: dict[str, str], pooled: bool, direct: str) -> None:
    settings = WorkerSettings.from_env({**URLS, **env})
    assert (settings.client.pooled, settings.direct_url) == (pooled, direct)


def test_a_worker_needs_the_way_past_it_and_a_producer_does_not() -> None:
    env = {**URLS, "THREADLINE_DATABASE_POOLER": "transaction"}
    assert ClientSettings.from_env(env).pooled
    with pytest.raises(ConfigurationError, match="set THREADLINE_DATABASE_DIRECT_URL"):
        WorkerSettings.from_env(env)
    with pytest.raises(ConfigurationError, match="say transaction"):
        ClientSettings.from_env({**URLS, "THREADLINE_DATABASE_POOLER": "yes"})


@pytest.mark.parametrize(("pooled", "threshold"), [(False, 0), (True, None)])
def test_behind_a_pooler_nothing_is_prepared(pooled: bool, threshold: int | None) -> None:
    backends = Backends(ClientSettings(database_url="postgresql://pooler/app", pooled=pooled))
    assert backends.database is not None
    assert backends.database.prepare_threshold == threshold


async def test_the_role_brings_the_schema(env: dict[str, str], workers: Any, database_url: str) -> None:
    env = {**env, "THREADLINE_DATABASE_DIRECT_URL": database_url}
    command = [sys.executable, "-m", "threadline.cli", "worker"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2, ended.stderr
    assert 'run ALTER ROLE "postgres" SET search_path = threadline, public' in ended.stderr

    with psycopg.connect(database_url, autocommit=True) as connection:
        setting = f'ALTER ROLE postgres IN DATABASE "{connection.info.dbname}" SET search_path = threadline, public'
        connection.execute(setting.encode())
    workers(THREADLINE_DATABASE_DIRECT_URL=database_url)
    settings = ClientSettings(redis_url=env["REDIS_URL"], database_url=database_url, pooled=True)
    async with Client(settings=settings) as client:
        job = await client.enqueue("steps", {"done": [], "until": 3})
        assert await job.result(timeout=20) == {"done": [0, 1, 2], "until": 3}
    assert LedgerView(database_url).rows("SELECT count(*) AS n FROM checkpoints")[0]["n"] == 5
