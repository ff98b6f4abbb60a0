"""The data folder: closed, owned by one at a time, and honest about who is in it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server_owner import await_gone, reachable_folder
from threadline_worker.embedded import EmbeddedFailed, ServerUrls, account, embedded_servers, folder, running_servers
from threadline_worker.embedded.account import Account, can_reach, shared_place
from threadline_worker.embedded.folder import Access, hold_or_find, open_folder, read_access, write_access
from threadline_worker.embedded.processes import process_birth
from threadline_worker.embedded.state import announce, withdraw

URLS = ServerUrls("redis://given", "postgresql://given")


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_an_announcement_counts_while_its_process_lives(tmp_path: Path) -> None:
    assert running_servers(tmp_path) is None
    announce(tmp_path, URLS, own=[])
    assert running_servers(tmp_path) == URLS
    assert stat.S_IMODE((tmp_path / "servers.json").stat().st_mode) == 0o600
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert running_servers(tmp_path) is None


@pytest.mark.parametrize(
    "changed", [{"born": "another time"}, {"born": None}, {"pid": "x"}, {"own": ["redis_url"]}, {"own": None}]
)
def test_an_announcement_is_not_believed(tmp_path: Path, changed: dict[str, object]) -> None:
    """A recycled process id, half a file, and embedded servers that do not answer."""
    announce(tmp_path, ServerUrls("redis://127.0.0.1:1", "postgresql://127.0.0.1:1/x"), own=[])
    file = tmp_path / "servers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    assert running_servers(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_a_broken_announcement_is_no_announcement(tmp_path: Path, text: str) -> None:
    (tmp_path / "servers.json").write_text(text, encoding="latin-1")
    assert running_servers(tmp_path) is None


def test_a_process_that_has_ended_has_no_birth(other_process: subprocess.Popen[bytes]) -> None:
    assert process_birth(other_process.pid) == process_birth(other_process.pid) is not None
    other_process.kill()
    await_gone([other_process.pid])  # not collected yet: a zombie has ended
    assert process_birth(other_process.pid) is None
    assert process_birth(os.getpid()) is not None


def test_one_owner_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_WAIT_SECONDS", 0.2)
    with hold_or_find(tmp_path) as held:
        assert isinstance(held, int)
        with (
            pytest.raises(EmbeddedFailed, match=r"Another process holds .* or choose another folder"),
            hold_or_find(tmp_path),
        ):
            pass
        announce(tmp_path, URLS, own=[])
        with hold_or_find(tmp_path) as found:
            assert found == URLS
    with hold_or_find(tmp_path) as held:
        assert isinstance(held, int)


def test_the_lock_is_held_until_the_last_heir_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_WAIT_SECONDS", 0.2)
    with hold_or_find(tmp_path) as held:
        assert isinstance(held, int)
        heir = subprocess.Popen(["/bin/sleep", "60"], pass_fds=[held])
    with heir:
        with pytest.raises(EmbeddedFailed), hold_or_find(tmp_path):
            pass
        heir.kill()
    with hold_or_find(tmp_path) as held:
        assert isinstance(held, int)


def test_password_and_ports_are_kept(tmp_path: Path) -> None:
    first = read_access(tmp_path)
    assert len(first.password) == 32
    assert read_access(tmp_path).password != first.password
    kept = Access(first.password, redis_port=1, postgres_port=2)
    write_access(tmp_path, kept)
    assert read_access(tmp_path) == kept
    assert stat.S_IMODE((tmp_path / "access.json").stat().st_mode) == 0o600


def test_a_new_folder_is_closed_and_an_old_one_left_as_it_is(tmp_path: Path) -> None:
    open_folder(tmp_path / "a" / ".threadline")
    assert stat.S_IMODE((tmp_path / "a" / ".threadline").stat().st_mode) == 0o700
    old = tmp_path / "old"
    old.mkdir()
    old.chmod(0o755)
    open_folder(old)
    assert stat.S_IMODE(old.stat().st_mode) == 0o755
    assert (old / ".gitignore").read_text() == "*\n"


def test_a_folder_that_cannot_be_used_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(EmbeddedFailed, match=r"cannot use .*Not a directory.*choose another folder, or set REDIS_URL"),
        embedded_servers(tmp_path / "file", env={}),
    ):
        pass


@pytest.mark.parametrize(
    ("mode", "who", "reachable"),
    [
        (0o700, Account(65533, 65533, "stranger"), False),
        (0o711, Account(65533, 65533, "stranger"), True),
        (0o701, Account(65533, os.getegid(), "group"), False),
        (0o710, Account(65533, os.getegid(), "group"), True),
        (0o077, Account(os.geteuid(), 65533, "owner"), False),
        (0o000, None, True),
    ],
)
def test_who_may_pass_through_a_folder(mode: int, who: Account | None, *, reachable: bool) -> None:
    with reachable_folder() as place:
        place.chmod(mode)
        assert can_reach(who, place) is reachable
        place.chmod(0o700)


def test_a_shared_place_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "READABLE_PLACES", (tmp_path,))
    place = shared_place()
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    place.chmod(0o777)
    with pytest.raises(EmbeddedFailed, match="others may write to it: remove it"):
        shared_place()
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(EmbeddedFailed, match="remove it"):
        shared_place()
