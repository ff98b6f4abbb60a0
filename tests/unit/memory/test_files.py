"""Reading a folder for the store and writing one from it: nothing outside is read or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import ConfigurationError
from threadline_worker.memory.files import Document, checked_path, read_folder, write_folder
from threadline_worker.memory.text import MAX_FILE_BYTES


def reasons(folder: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in read_folder(folder)[1])


def test_files_come_with_path_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "note.md").write_text("Grüße\n", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "zero.txt").write_bytes(b"a\0b")  # text that Postgres cannot hold
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("secret")
    (tmp_path / ".env").write_text("secret")
    documents, refused = read_folder(tmp_path)
    assert refused == []
    assert [(document.path, document.encoding) for document in documents] == [
        ("/picture.png", "base64"),
        ("/zero.txt", "base64"),
        ("/a/b/note.md", "utf-8"),
    ]
    target = tmp_path / "out"
    write_folder(target, documents)
    for document in documents:
        assert (target / document.path[1:]).read_bytes() == (tmp_path / document.path[1:]).read_bytes()


def test_links_pipes_and_large_files_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file-link.md").symlink_to(outside / "secret.md")
    (folder / "folder-link").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    (folder / "large.txt").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (folder / "exact.txt").write_bytes(b"x" * MAX_FILE_BYTES)
    found = reasons(folder)
    assert [document.path for document in read_folder(folder)[0]] == ["/exact.txt"]
    assert "link" in found["file-link.md"]
    assert "link" in found["folder-link"]
    assert "regular" in found["pipe"]
    assert "bytes" in found["large.txt"]


def test_names_that_look_like_others_are_refused(tmp_path: Path) -> None:
    for name in (
        "e\u0301.md",
        "\u00e9.md",
        "\uff41.md",
        "a.md",
        "zero\u200bwidth.md",
        "\u2024\u2024",
        "a\\b.md",
        "new\nline",
    ):
        (tmp_path / name).write_text("x")
    documents, refused = read_folder(tmp_path)
    assert sorted(document.path for document in documents) == ["/a.md", "/\u00e9.md"]
    assert len(refused) == 6
    assert all(line.isascii() and line.isprintable() for line in refused)


@pytest.mark.parametrize(
    "path",
    ["../a", "/a/../b", "/./a", "//a", "/a/", "", "~/a", "/a\0", "/\u2025/a", "/a\uff0fb", "/" + "x" * 2000, "/\ud800"],
)
def test_paths_that_lead_elsewhere_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        checked_path(path)
    with pytest.raises(ConfigurationError):
        write_folder(tmp_path / "out", [Document(path, "x", "utf-8")])


@given(st.text(max_size=40))
def test_what_is_accepted_stays_inside(path: str) -> None:
    try:
        plain = checked_path(path)
    except ConfigurationError:
        return
    assert checked_path(plain) == plain
    assert os.path.normpath(f"/root{plain}") == f"/root{plain}"


def test_an_export_writes_through_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    target = tmp_path / "out"
    target.mkdir()
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "kept")
    for path in ("/folder/new", "/file"):
        with pytest.raises(ConfigurationError, match="link"):
            write_folder(target, [Document(path, "overwritten", "utf-8")])
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("kept", "kept")]
