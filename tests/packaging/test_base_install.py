"""The base install alone: small, light, and able to serve a producer with the newest redis-py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_PRODUCER = """
import asyncio, json, os, sys
import redis
from threadline import Client, JobFailed, NeedsDatabase

async def main():
    found = {"redis": redis.__version__, "events": []}
    async with Client.from_env() as client:
        job = await client.enqueue("steps", {"done": [], "until": 2}, user_id="base", idempotency_key=sys.argv[1])
        async for event in job.events():
            found["events"].append([event.id, event.type])
        found["result"] = await job.result(timeout=30)
        try:
            found["state"] = (await job.status()).state
        except NeedsDatabase:
            found["state"] = "NeedsDatabase"
    print(json.dumps(found))

asyncio.run(main())
"""


def _run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _installer(python: Path) -> list[str | Path]:
    """As the Makefile does it: an environment that was made on a bare Debian has no pip inside, but it outside."""
    for interpreter in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        if subprocess.run([interpreter, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            return [interpreter, "-m", "pip", "--python", python, "install", "--disable-pip-version-check"]
    return [sys.executable, "-m", "uv", "pip", "install", "--python", python]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves nothing in the tree."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("producer", "worker"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", cwd=source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with `threadline` alone, and the newest redis-py that its bounds allow."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    _run(*_installer(python), "--quiet", wheel)
    return python


def test_the_base_install_brings_only_what_a_producer_needs(base: Path) -> None:
    code = "from importlib.metadata import distributions; print(*(d.metadata['Name'] for d in distributions()))"
    names = {name.lower().replace("_", "-") for name in _run(base, "-c", code).split()}
    assert {"threadline", "redis", "psycopg", "msgspec"} <= names
    assert not names & {"langgraph", "langchain", "langchain-core", "arq", "pydantic", "deepagents", "click", "rich"}


def test_the_installed_package_is_typed_and_carries_its_sql_and_lua(base: Path) -> None:
    code = (
        "import threadline, pathlib; p = pathlib.Path(threadline.__file__).parent;"
        "print(*[(p / n).is_file() for n in ('py.typed', 'log/append.lua', 'ledger/schema/0001_ledger.sql',"
        " 'ledger/queries/claim.sql')])"
    )
    assert _run(base, "-c", code).split() == ["True"] * 4


def test_a_missing_extra_says_what_to_install(base: Path) -> None:
    done = subprocess.run([base, "-m", "threadline.cli", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("install 'threadline[cli]'")
    assert "Traceback" not in done.stderr


def test_importing_threadline_loads_no_driver(base: Path) -> None:
    code = "import sys, threadline; print(sorted({'redis', 'psycopg', 'msgspec', 'asyncio'} & set(sys.modules)))"
    assert _run(base, "-c", code).strip() == "[]"


@pytest.mark.parametrize("servers_named", ["both", "redis alone"])
def test_a_base_producer_enqueues_to_and_follows_a_real_worker(
    base: Path, workers: Callable[..., object], env: dict[str, str], servers_named: str
) -> None:
    workers()
    own = {name: env[name] for name in ("PATH", "REDIS_URL")}
    if servers_named == "both":
        own["DATABASE_URL"] = env["DATABASE_URL"]
    found = json.loads(_run(base, "-c", _PRODUCER, servers_named.replace(" ", "-"), env=own))
    assert int(found["redis"].split(".")[0]) >= 7, "newer than what the worker runs on"
    assert found["events"] == [
        ["0-1", "queued"],
        ["1-1", "started"],
        ["1-2", "updates"],
        ["1-3", "updates"],
        ["2-1", "succeeded"],
    ]
    assert found["result"] == {"done": [0, 1], "until": 2}
    assert found["state"] == ("succeeded" if servers_named == "both" else "NeedsDatabase")
