"""The keeper ends what it started, however its parent ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from support.server_owner import await_gone
from threadline_worker.embedded.errors import EmbeddedFailed
from threadline_worker.embedded.keeper import Keeper, Spawn, keeper
from threadline_worker.embedded.processes import process_birth


def sleeper(folder: Path, *argv: str, stop: signal.Signals = signal.SIGTERM) -> Spawn:
    return Spawn(argv or ("/bin/sleep", "60"), folder, folder / "log", stop, None)


def await_exit(running: Keeper, pid: int) -> int:
    await_gone([pid])
    code = running.exit_code(pid)
    assert code is not None
    return code


def test_at_the_end_of_the_block_all_have_ended(tmp_path: Path) -> None:
    with keeper(throw_away_in=None) as running:
        pids = [running.spawn(sleeper(tmp_path)) for _ in range(2)]
        assert [running.exit_code(pid) for pid in pids] == [None, None]
    assert [process_birth(pid) for pid in [*pids, running.pid]] == [None, None, None]


def test_what_a_child_started_in_its_session_ends_too(tmp_path: Path) -> None:
    with keeper(throw_away_in=None) as running:
        running.spawn(sleeper(tmp_path, "/bin/sh", "-c", "sleep 60 & echo $! > helper.tmp; mv helper.tmp helper; wait"))
        while not (tmp_path / "helper").exists():
            os.sched_yield()
    await_gone([int((tmp_path / "helper").read_text())])


def test_the_throw_away_folder_is_made_and_removed(tmp_path: Path) -> None:
    with keeper(throw_away_in=tmp_path, mode=0o700) as running:
        assert running.folder
        assert running.folder.parent == tmp_path
        (running.folder / "data").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_folder_is_said(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(EmbeddedFailed, match="No such file"), keeper(throw_away_in=tmp_path / "gone"):
        pass
    assert time.monotonic() - begun < 10  # the keeper hears at once that it is not needed


def test_how_a_process_ended_is_told(tmp_path: Path) -> None:
    with keeper(throw_away_in=None) as running:
        assert await_exit(running, running.spawn(sleeper(tmp_path, "/bin/sh", "-c", "echo said; exit 3"))) == 3
        killed = running.spawn(sleeper(tmp_path))
        running.signal(killed, signal.SIGKILL)
        assert await_exit(running, killed) == -signal.SIGKILL
        running.signal(killed, signal.SIGTERM)  # ended: nothing happens
    assert (tmp_path / "log").read_text() == "said\n"


def test_a_program_that_cannot_be_run_is_an_error_and_the_keeper_goes_on(tmp_path: Path) -> None:
    with keeper(throw_away_in=None) as running:
        with pytest.raises(EmbeddedFailed, match=r"could not be started.*No such file"):
            running.spawn(sleeper(tmp_path, "/nowhere/server"))
        assert running.exit_code(running.spawn(sleeper(tmp_path))) is None


def test_a_keeper_that_was_ended_is_said_in_a_sentence(tmp_path: Path) -> None:
    with keeper(throw_away_in=tmp_path) as running:
        pid = running.spawn(sleeper(tmp_path))
        os.kill(running.pid, signal.SIGTERM)
        await_gone([pid, running.pid])
        with pytest.raises(EmbeddedFailed, match="start again"):
            running.spawn(sleeper(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_secrets_of_our_environment_are_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("PGDATA", "/elsewhere")
    with keeper(throw_away_in=None) as running:
        await_exit(running, running.spawn(sleeper(tmp_path, "/usr/bin/env")))
    names = {line.split("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert {"PATH", "HOME", "LC_ALL"} <= names <= {"PATH", "HOME", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PWD", "_"}


def test_the_lock_stays_held_by_a_server_that_outlives_even_the_keeper(tmp_path: Path) -> None:
    """Else a next start would run a second server on the same data."""
    deaf = "trap '' TERM; echo $$ > deaf.tmp; mv deaf.tmp deaf; while :; do sleep 1; done"
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "lock").open("w") as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with keeper(throw_away_in=None, inherit=[lock.fileno()]) as running:
            server = running.spawn(sleeper(tmp_path, "/bin/sh", "-c", deaf))
            while not (tmp_path / "deaf").exists():
                os.sched_yield()
            os.kill(running.pid, signal.SIGKILL)
        lock.close()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.killpg(server, signal.SIGKILL)
        fcntl.flock(other, fcntl.LOCK_EX)  # free as soon as it has gone


def test_a_fork_of_the_parent_that_keeps_the_socket_open_does_not_keep_the_children(tmp_path: Path) -> None:
    """The end of the socket alone would not tell."""
    program = f"""
        import json, os, signal, time
        from pathlib import Path
        from threadline_worker.embedded.keeper import Spawn, keeper
        with keeper(throw_away_in=None) as running:
            folder = Path({str(tmp_path)!r})
            pid = running.spawn(Spawn(["/bin/sleep", "60"], folder, folder / "log", signal.SIGTERM, None))
            fork = os.fork()
            if fork == 0:
                time.sleep(60)
                os._exit(0)
            print(json.dumps([pid, running.pid, fork]), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        child, its_keeper, fork = json.loads(owner.stdout.readline())
        try:
            await_gone([child, its_keeper])
            assert process_birth(fork) is not None
        finally:
            os.kill(fork, signal.SIGKILL)
