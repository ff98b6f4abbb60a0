"""`threadline dev` as a developer uses it: paste its line, run jobs, find it from a second terminal, stop it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import children_below, gone
from support.server_owner import reachable_folder

_PROGRAM = [sys.executable, "-m", "threadline.cli"]


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


def _env(place: Path, **more: str) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    agents = {"THREADLINE_AGENTS": "steps=support.graphs:steps", "PYTHONPATH": str(Path(__file__).parents[1])}
    return {**keep, "THREADLINE_EMBEDDED": "wheels", **agents, "TEST_GATES": str(place / "gates"), **more}


def _exported(line: str) -> dict[str, str]:
    words = shlex.split(line)
    assert words[0] == "export"
    return dict(word.split("=", 1) for word in words[1:])


@contextmanager
def _dev(place: Path, workers: int = 1) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    dev = subprocess.Popen(
        [*_PROGRAM, "dev", "--workers", str(workers)],
        cwd=place,
        env=_env(place),
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert dev.stdout is not None
    try:
        lines = []
        for line in dev.stdout:
            lines.append(line)
            if line.startswith("export "):
                break
        assert re.match(r" +Redis +redis://", lines[-3])
        assert re.match(r" +Postgres +postgresql://", lines[-2])
        yield dev, _exported(lines[-1])
    finally:
        dev.kill()
        dev.wait(10)
        dev.stdout.close()


def _call(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_PROGRAM, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=90, check=False
    )


def test_dev_serves_is_found_again_and_stops_in_order(place: Path) -> None:
    with _dev(place) as (dev, urls):
        own = _env(place, **urls)
        done = _call("enqueue", "steps", '{"done": [], "until": 2}', "--input-json", "--watch", env=own, cwd=place)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "succeeded" in done.stdout

        again = _call("dev", env=_env(place), cwd=place)
        assert again.returncode == 0
        assert _exported(again.stdout.splitlines()[-1]) == urls

        left = children_below(dev.pid)
        dev.send_signal(signal.SIGINT)
        assert dev.wait(30) == 130
        assert gone(left)

    # What was done is still there at the next start, under the same line to paste.
    with _dev(place) as (dev, later):
        assert later == urls
        listed = _call("jobs", "--json", env=_env(place, **later), cwd=place)
        assert '"state":"succeeded"' in listed.stdout.replace(" ", "")


def test_a_killed_dev_leaves_nothing_running(place: Path) -> None:
    with _dev(place) as (dev, _urls):
        left = children_below(dev.pid)
        assert len(left) >= 3
        dev.kill()
        dev.wait(10)
        assert gone(left), "servers and workers of a killed parent end with it"


def test_dev_without_workers_keeps_its_servers_up(place: Path) -> None:
    with _dev(place, workers=0) as (dev, urls):
        done = _call("enqueue", "steps", '{"done": [], "until": 2}', "--input-json", env=_env(place, **urls), cwd=place)
        assert done.returncode == 0, done.stdout + done.stderr
        dev.terminate()
        assert dev.wait(30) == 128 + signal.SIGTERM
