"""The demo as a person runs it: what it prints, what the ledger says afterwards, and that nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from support.processes import children_below, gone
from support.server_owner import reachable_folder
from threadline_worker.embedded import embedded_servers

_DEMO = [sys.executable, "-m", "threadline.cli", "demo"]


def _env(**more: str) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "THREADLINE_EMBEDDED") if name in os.environ}
    return {**keep, "THREADLINE_EMBEDDED": "wheels", **more}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that also the user whom root drops to can reach: everything that a demo leaves is in it."""
    with reachable_folder() as folder:
        yield folder


@contextmanager
def _ledger(folder: Path) -> Iterator[psycopg.Connection[dict[str, object]]]:
    with (
        embedded_servers(folder / ".threadline", env=_env()) as urls,
        psycopg.connect(urls.database_url, row_factory=dict_row) as connection,
    ):
        yield connection


def test_the_demo_survives_its_own_kill_and_ends_with_a_report(place: Path) -> None:
    run = subprocess.run(_DEMO, cwd=place, env=_env(), capture_output=True, text=True, timeout=170, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    told = run.stdout + run.stderr
    killed = re.search(r"kill -9 (\d+)", told)
    assert killed is not None
    first, second = re.search(r"started +(\S+)", run.stdout), re.search(r"resumed +(\S+) picks up", run.stdout)
    assert first is not None
    assert second is not None
    assert f"-{killed[1]}-" in first[1], "the worker that ran the job is the one that was killed"
    assert second[1] != first[1]

    assert re.search(r"steps run again after their commit +0\n", run.stdout)
    assert re.search(r"gaps +0\n", run.stdout)
    pickup = re.search(r"pick-up.* ([\d.]+) s\n", run.stdout)
    assert pickup is not None
    steps = re.search(r"steps done +(\d+)\n", run.stdout)
    assert steps is not None
    assert int(steps[1]) > 20

    path = re.findall(r"^The report is in (\S+)$", run.stdout, re.MULTILINE)
    report = (place / path[-1]).read_text()
    assert report.startswith("# ")
    assert "No language model was used" in report
    cited = set(re.findall(r"\[(\d+)\]", report))
    sources = re.findall(r"^(\d+)\. .+\(.+\)$", report, re.MULTILINE)
    assert cited
    assert cited == set(sources)
    assert report.strip() in run.stdout

    with _ledger(place) as connection:
        jobs = connection.execute("SELECT * FROM demo.jobs").fetchall()
        assert [(job["state"], job["failures"], job["stalls"], job["epoch"]) for job in jobs] == [
            ("succeeded", 0, 0, 4)  # claim, rescue, claim, finish
        ]
        assert jobs[0]["result"]["report"] == report  # type: ignore[index, call-overload]
        assert connection.execute("SELECT count(*) AS n FROM demo.workers").fetchone() == {"n": 0}


def test_ctrl_c_in_the_middle_leaves_no_process_and_no_port(place: Path) -> None:
    demo = subprocess.Popen(
        _DEMO,
        cwd=place,
        env=_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    with demo.stdout:
        for line in demo.stdout:
            if "started" in line:
                break
        left = children_below(demo.pid)
        assert len(left) >= 4, "two workers and two servers run"
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 130
    assert gone(left), "everything that the demo started has ended"
    # The folder is free again: nothing holds its lock or its ports.
    with _ledger(place) as connection:
        assert connection.execute("SELECT 1 AS n").fetchone() == {"n": 1}


def test_a_corpus_that_is_not_there_is_said_in_one_line(place: Path) -> None:
    run = subprocess.run(
        [*_DEMO, "--corpus", "nowhere"],
        cwd=place,
        env=_env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "nowhere" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (place / ".threadline").exists()


def test_a_question_and_a_folder_of_ones_own(place: Path) -> None:
    folder = place / "notes"
    folder.mkdir()
    (folder / "harbour.md").write_text(
        "# Harbour log\n\nThe lighthouse of Brae was lit again in 1974 after its lamp had been replaced.\n\n"
        "Ships report the lighthouse of Brae by its double flash every ten seconds.\n"
    )
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 this is no document")
    run = subprocess.run(
        [*_DEMO, "--question", "When was the lighthouse of Brae lit again?", "--corpus", str(folder)],
        cwd=place,
        env=_env(),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "The lighthouse of Brae was lit again in 1974" in run.stdout
    assert "(harbour.md" in run.stdout
    assert re.search(r"gaps +0\n", run.stdout)
