"""`threadline memory` on a real database: what it stores is what agents read, and it can be repeated."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from support.desk import LedgerView
from threadline.cli.app import cli
from threadline.errors import ConfigurationError
from threadline_worker.memory.names import UserNames

ANN = "ann@example.org"
Run = Callable[..., Result]


@pytest.fixture
def memory(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`memory("list", …)` in this process; the environment can be changed by names."""
    # It would stay so for all tests after this one.
    monkeypatch.setattr("threadline_worker.telemetry.logs.configure_logs", lambda _level: None)
    disk = tmp_path / "disk"
    disk.mkdir()

    def run(*arguments: str, **more: str) -> Result:
        routes = f"/memories/=user:rw,/knowledge/=shared:r,/project/=disk:{disk}:r"
        chosen = {**env, "THREADLINE_MEMORY_ROUTES": routes, **more}
        with structlog.testing.capture_logs():
            return CliRunner().invoke(cli, ["memory", *arguments], env=chosen, standalone_mode=False)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "seed"
    (made / "sub").mkdir(parents=True)
    (made / "a.md").write_text("Grüße\n", encoding="utf-8")
    (made / "sub" / "b.png").write_bytes(b"\x89PNG\xff")
    return made


def test_an_import_can_be_tried_repeated_listed_shown_and_exported(
    memory: Run, folder: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    view = LedgerView(env["DATABASE_URL"])
    seed = ("import", str(folder), "--user", ANN)
    assert memory(*seed, "--dry-run").output == "new\t/a.md\nnew\t/sub/b.png\n"
    assert view.rows("SELECT 1 FROM store") == []
    assert memory(*seed).output == "new\t/a.md\nnew\t/sub/b.png\n"
    before = view.dump("store")
    assert memory(*seed).output == "same\t/a.md\nsame\t/sub/b.png\n"
    assert view.dump("store") == before
    (row,) = view.rows("SELECT prefix, value, expires_at FROM store WHERE key = '/a.md'")
    assert (row["prefix"], row["value"]["content"]) == (f"memories.{UserNames().name(ANN)}", "Grüße\n")
    assert row["expires_at"] is None

    listed = json.loads(memory("list", "--user", ANN, "--json").output)
    assert [(entry["path"], entry["bytes"], entry["encoding"]) for entry in listed] == [
        ("/a.md", 8, "utf-8"),
        ("/sub/b.png", 5, "base64"),
    ]
    assert memory("list", "--user", "another").output == ""
    assert memory("show", "sub/b.png", "--user", ANN).stdout_bytes == b"\x89PNG\xff"
    out = tmp_path / "out"
    assert memory("export", str(out), "--user", ANN).exit_code == 0
    assert (out / "a.md").read_text(encoding="utf-8") == "Grüße\n"
    (folder / "a.md").write_text("changed")
    assert memory(*seed).output.startswith("changed\t/a.md\n")


def test_delete_takes_all_it_was_given_or_nothing(memory: Run, folder: Path) -> None:
    memory("import", str(folder), "--route", "knowledge")
    there = "/a.md\n/sub/b.png\n"
    missing = memory("delete", "/a.md", "/nosuch", "--route", "/knowledge/")
    assert missing.return_value == 3
    assert memory("delete", "--all", "--dry-run", "--route", "/knowledge/").output == there
    assert memory("delete", "/a.md", "--route", "/knowledge/").output == "/a.md\n"
    assert memory("delete", "--all", "--route", "/knowledge/").output == "/sub/b.png\n"
    assert memory("list", "--route", "/knowledge/").output == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("list",), "--user"),
        (("list", "--route", "/knowledge/", "--user", "u"), "shared"),
        (("list", "--route", "/nosuch/"), "/knowledge/"),
        (("list", "--route", "/project/"), "on disk"),
        (("import", "/no/such/folder", "--user", "u"), "no folder"),
        (("show", "../x", "--user", "u"), "plain path"),
        (("index",), "THREADLINE_STORE_EMBEDDINGS"),
        (("rekey",), "THREADLINE_USER_HASH_KEYS"),
    ],
)
def test_what_cannot_be_done_is_told(memory: Run, arguments: tuple[str, ...], says: str) -> None:
    result = memory(*arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert says in str(result.exception)


def test_an_import_with_one_bad_file_stores_nothing(memory: Run, folder: Path, env: dict[str, str]) -> None:
    (folder / "link.md").symlink_to("/etc/passwd")
    result = memory("import", str(folder), "--user", "u")
    assert "link.md" in str(result.exception)
    assert LedgerView(env["DATABASE_URL"]).rows("SELECT 1 FROM store") == []


def test_an_index_is_made_filled_and_made_anew(memory: Run, folder: Path, env: dict[str, str]) -> None:
    memory("import", str(folder), "--user", "u")
    offline = {"THREADLINE_STORE_EMBEDDINGS": "offline"}
    assert memory("index", **offline).output == "1 indexed\n"
    assert memory("index", **offline).output == "0 indexed\n"
    (folder / "c.md").write_text("more")
    memory("import", str(folder), "--user", "u", **offline)  # indexed at once
    assert memory("index", **offline).output == "0 indexed\n"
    smaller = {**offline, "THREADLINE_STORE_EMBEDDING_DIMS": "16"}
    assert "--rebuild" in str(memory("index", **smaller).exception)
    assert memory("index", "--rebuild", **smaller).output == "2 indexed\n"
    rows = LedgerView(env["DATABASE_URL"]).rows("SELECT DISTINCT vector_dims(embedding) AS dims FROM store_vectors")
    assert rows == [{"dims": 16}]


def test_with_encryption_at_rest_files_are_sealed_and_not_indexed(
    memory: Run, folder: Path, env: dict[str, str]
) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    sealed = {"THREADLINE_ENCRYPTION_KEYS": f"k:{key}", "THREADLINE_STORE_EMBEDDINGS": "offline"}
    memory("import", str(folder), "--user", "u", **sealed)
    (row,) = LedgerView(env["DATABASE_URL"]).rows("SELECT value::text FROM store WHERE key = '/a.md'")
    assert '"sealed"' in row["value"]
    assert memory("show", "/a.md", "--user", "u", **sealed).stdout_bytes.decode() == "Grüße\n"
    assert memory("import", str(folder), "--user", "u", **sealed).output == "same\t/a.md\nsame\t/sub/b.png\n"
    rotated = {**sealed, "THREADLINE_USER_HASH_KEYS": key}
    assert memory("show", "/a.md", "--user", "u", **rotated).stdout_bytes.decode() == "Grüße\n"
    assert "ENCRYPTION" in str(memory("index", **sealed).exception)


def test_rekey_moves_all_that_has_an_earlier_name(memory: Run, env: dict[str, str]) -> None:
    view = LedgerView(env["DATABASE_URL"])
    keys = base64.b64encode(b"n" * 32).decode()
    old, new = UserNames().name(ANN), UserNames((b"n" * 32,)).name(ANN)
    view.rows("INSERT INTO threads (thread_id, user_id) VALUES ('t', %s)", ANN)
    for prefix in (f"memories.{old}", f"orders.{old}.open", "knowledge.shared", "single"):
        view.rows("INSERT INTO store (prefix, key, value) VALUES (%s, 'k', '{}')", prefix)
    expected = f"memories.{old}\tmemories.{new}\norders.{old}.open\torders.{new}.open\n"
    assert memory("rekey", "--dry-run", THREADLINE_USER_HASH_KEYS=keys).output == expected
    assert memory("rekey", THREADLINE_USER_HASH_KEYS=keys).output == expected
    assert memory("rekey", THREADLINE_USER_HASH_KEYS=keys).output == ""
    prefixes = {row["prefix"] for row in view.rows("SELECT prefix FROM store")}
    assert prefixes == {f"memories.{new}", f"orders.{new}.open", "knowledge.shared", "single"}


def test_as_a_process_stdout_is_data_alone(memory: Run, folder: Path, env: dict[str, str]) -> None:
    memory("import", str(folder), "--user", "u")
    done = subprocess.run(
        [sys.executable, "-m", "threadline.cli", "memory", "index"],
        env={**env, "THREADLINE_STORE_EMBEDDINGS": "offline"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 indexed\n", "")
