"""The corpus search finds what is there, names it the same everywhere, and no file or query breaks it."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.documents import pdf
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.research import corpus_index
from threadline_worker.agents.research.corpus import Corpus, CorpusError, snippet
from threadline_worker.agents.research.corpus_index import KEPT_INDEXES, ensure_index


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    made = tmp_path / "corpus"
    (made / "deep" / "er").mkdir(parents=True)
    (made / "pool.md").write_text("# The Pool\n\n## Opening\n\nA pool opens connections in the background.\n")
    (made / "deep" / "er" / "notes.txt").write_text("Nobody ever waits for a connection.\n")
    (made / "page.html").write_text(
        "<html><head><title>A &amp; B</title></head><body><article><p>Gateways time out after thirty seconds, "
        "which surprises people.</p></article></body></html>"
    )
    (made / "paper.pdf").write_bytes(pdf("Nothing here.", "Replicas lag behind.", title="On Replicas"))
    return made


@pytest.fixture
def corpus(folder: Path, tmp_path: Path) -> Iterator[Any]:
    opened = Corpus.open(folder, tmp_path / "cache")
    yield opened
    opened.close()


def test_every_kind_of_file_is_found_at_its_place(corpus: Corpus) -> None:
    sources = {word: corpus.search(word)[0].source for word in ("background", "nobody", "gateways", "replicas lag")}
    assert {word: (source["title"], source["location"]) for word, source in sources.items()} == {
        "background": ("The Pool: Opening", "pool.md"),
        "nobody": ("notes", "deep/er/notes.txt"),
        "gateways": ("A & B", "page.html"),
        "replicas lag": ("On Replicas", "paper.pdf, page 2"),
    }


def test_rarer_and_more_words_come_first(corpus: Corpus) -> None:
    assert corpus.search("connection background pool")[0].location == "pool.md"
    assert len(corpus.search("connection")) == 2
    assert len(corpus.search("connection", limit=1)) == 1


def test_nothing_is_found_where_nothing_fits(corpus: Corpus) -> None:
    assert corpus.search("zebra") == []
    assert corpus.search("") == []
    assert corpus.search("?!") == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.text(max_size=300), st.integers(-(10**6), 10**6))
def test_no_query_and_no_limit_is_an_error(corpus: Corpus, text: str, limit: int) -> None:
    assert len(corpus.search(text, limit)) <= 20


def test_a_passage_is_read_with_its_neighbours(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\n" + "\n\n".join(f"Part {n}. " + "x " * 400 for n in range(3)))
    corpus = Corpus.open(folder, tmp_path / "cache")
    middle: Any = corpus.read(corpus.search("part 1")[0].id)
    first: Any = corpus.read(middle.previous_id)
    last: Any = corpus.read(middle.next_id)
    assert (first.text[:6], middle.text[:6], last.text[:6]) == ("Part 0", "Part 1", "Part 2")
    assert (first.previous_id, last.next_id) == (None, None)
    assert corpus.read("S00000000") is None
    corpus.close()


def test_ids_are_the_same_in_another_place_and_after_edits_elsewhere(folder: Path, tmp_path: Path) -> None:
    before = {p.text: p.id for p in Corpus.open(folder, tmp_path / "one").search("connection")}
    moved = folder.rename(tmp_path / "moved")
    (moved / "aaa.md").write_text("New, and about a connection.")
    after = {p.text: p.id for p in Corpus.open(moved, tmp_path / "two").search("connection")}
    assert before.items() <= after.items()
    assert len(set(after.values())) == 3


def test_the_same_text_twice_has_two_ids(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nThe very same.\n\n# B\n\nThe very same.\n")
    assert len({passage.id for passage in Corpus.open(folder, tmp_path / "cache").search("same")}) == 2


def test_unreadable_files_are_skipped_with_a_warning_and_the_rest_is_found(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nthis is not one")
    (folder / "cut.pdf").write_bytes(pdf("Cut.")[:180])
    (folder / "latin.txt").write_bytes("Größe".encode("latin-1"))
    (folder / "binary.md").write_bytes(b"text\0more")
    (folder / "empty.md").write_text("  \n")
    with structlog.testing.capture_logs() as logs:
        corpus = Corpus.open(folder, tmp_path / "cache")
    skipped = {Path(log["path"]).name: log["reason"] for log in logs if log["event"] == "corpus.skipped"}
    assert set(skipped) == {"broken.pdf", "cut.pdf", "latin.txt", "binary.md", "empty.md"}
    assert skipped["latin.txt"] == "is not UTF-8 text"
    assert skipped["binary.md"] == "is binary, not text"
    assert skipped["broken.pdf"].startswith("not a readable PDF")
    assert corpus.search("background")


def test_links_out_of_the_folder_and_hidden_files_are_left_out(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("xylophone")
    (folder / "link.txt").symlink_to(secret / "key.txt")
    (folder / "linked").symlink_to(secret)
    (folder / ".hidden.txt").write_text("xylophone")
    (folder / "gone.txt").symlink_to(tmp_path / "nothing")
    corpus = Corpus.open(folder, tmp_path / "cache")
    assert corpus.search("xylophone") == []
    assert corpus.search("background")


def test_utf16_with_its_mark_and_odd_names_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "wide.txt").write_text("Wideness.", encoding="utf-16")
    (folder / os.fsdecode(b"odd-\xff.txt")).write_text("Oddness.")
    corpus = Corpus.open(folder, tmp_path / "cache")
    assert corpus.search("wideness")[0].title == "wide"
    assert corpus.search("oddness")[0].location.encode()


def test_an_index_is_built_once_and_anew_after_a_change(folder: Path, tmp_path: Path) -> None:
    first = ensure_index(folder, tmp_path / "cache")
    built = first.stat().st_mtime_ns
    assert ensure_index(folder, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == built
    (folder / "pool.md").write_text("# The Pool\n\nAnother text altogether.")
    assert ensure_index(folder, tmp_path / "cache") != first


def test_old_indexes_of_the_folder_are_removed_but_not_all_at_once(folder: Path, tmp_path: Path) -> None:
    for number in range(KEPT_INDEXES + 3):
        (folder / "pool.md").write_text("x" * (number + 1))
        newest = ensure_index(folder, tmp_path / "cache")
    left = list((tmp_path / "cache").iterdir())
    assert newest in left
    assert len(left) == KEPT_INDEXES


def test_several_builders_at_once_leave_one_whole_index(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3, timeout=20)
    build = corpus_index._build

    def build_together(*args: Any) -> None:
        together.wait()
        build(*args)

    monkeypatch.setattr(corpus_index, "_build", build_together)
    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(lambda _: ensure_index(folder, tmp_path / "cache"), range(3)))
    assert list((tmp_path / "cache").iterdir()) == list(paths)
    assert Corpus(paths.pop()).search("background")


def test_a_builder_that_fails_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: Any) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(corpus_index, "_fill", fill)
    with pytest.raises(AgentConfigError, match="THREADLINE_CACHE_DIR"):
        ensure_index(folder, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_many_threads_search_at_once(corpus: Corpus) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(len(found) == 2 for found in pool.map(corpus.search, ["connection"] * 64))


def test_a_missing_folder_and_a_file_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(AgentConfigError, match=r"THREADLINE_CORPUS=.*does not exist"):
        Corpus.open(tmp_path / "nowhere", tmp_path)
    (tmp_path / "file.md").write_text("x")
    with pytest.raises(AgentConfigError, match=r"THREADLINE_CORPUS=.*is not a folder"):
        Corpus.open(tmp_path / "file.md", tmp_path)


def test_an_unusable_cache_says_what_to_set(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file, not a folder")
    with pytest.raises(AgentConfigError, match="THREADLINE_CACHE_DIR"):
        Corpus.open(folder, tmp_path / "blocked")


def test_an_empty_corpus_is_a_warning_and_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with structlog.testing.capture_logs() as logs:
        corpus = Corpus.open(tmp_path / "corpus", tmp_path / "cache")
    assert "corpus.empty" in {log["event"] for log in logs}
    assert corpus.search("anything") == []


def test_an_index_that_breaks_later_is_an_error_that_a_model_can_read(folder: Path, tmp_path: Path) -> None:
    index = ensure_index(folder, tmp_path / "cache")
    index.write_bytes(b"not a database, " * 100)
    with pytest.raises(CorpusError, match="go on without it"):
        Corpus(index).search("background")


def test_a_snippet_shows_where_the_words_are() -> None:
    text = "Filler. " * 100 + "The pool closes idle connections. " + "Filler. " * 100
    cut = snippet(text, "idle connections")
    assert "closes idle connections" in cut
    assert cut.startswith("… ")
    assert cut.endswith(" …")
    assert snippet("Short.", "x") == "Short."
