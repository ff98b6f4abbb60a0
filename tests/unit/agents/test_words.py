"""No text is a syntax error for the search index, in any script."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline_worker.agents.words import match_expression, searchable, words_of


@pytest.fixture(scope="module")
def index() -> Iterator[Any]:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize='porter unicode61 remove_diacritics 2')")
    for text in ("A pool of connections.", "使用连接池可以提高性能。", "Größe und Straße"):
        database.execute("INSERT INTO words VALUES (?)", (searchable(text),))
    yield database
    database.close()


def found(index: sqlite3.Connection, question: str) -> int:
    match = match_expression(question)
    return len(index.execute("SELECT 1 FROM words WHERE words MATCH ?", (match,)).fetchall()) if match else 0


@given(st.text(max_size=200))
def test_any_text_is_a_valid_query(index: sqlite3.Connection, text: str) -> None:
    found(index, text)


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "pool AND",
        "NEAR(pool",
        "pool*",
        "text:pool",
        "-pool",
        "^pool",
        "pool OR NOT (",
        "'; DROP TABLE words",
        "{x}: pool",
    ],
)
def test_operators_are_plain_words(index: sqlite3.Connection, question: str) -> None:
    found(index, question)
    assert index.execute("SELECT count(*) FROM words").fetchone() == (3,)


def test_a_word_is_found_in_its_other_forms(index: sqlite3.Connection) -> None:
    assert found(index, "pools connecting") == 1


def test_scripts_without_spaces_are_found_inside_a_run(index: sqlite3.Connection) -> None:
    assert found(index, "连接池") == 1
    assert found(index, "接连") == 0  # the same signs, another word
    assert found(index, "数据库") == 0


def test_accents_do_not_matter(index: sqlite3.Connection) -> None:
    assert found(index, "GROSSE grösse") == 1


def test_text_without_words_gives_no_query() -> None:
    assert match_expression("?!… --") == ""


def test_unspaced_runs_become_pairs_and_other_words_stay_whole() -> None:
    assert words_of("psycopg连接池 und Pool") == ["psycopg", "连接", "接池", "und", "pool"]
