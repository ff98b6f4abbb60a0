"""Splits text into the words that both the search index and the offline model go by, in any script."""

from __future__ import annotations

import itertools
import re

MAX_QUERY_WORDS = 32

_WORD = re.compile(r"[^\W_]+")
# Scripts written without spaces: pairs of neighbouring characters serve as words.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])"
)


def is_unspaced(text: str) -> bool:
    """Tell whether a text has characters of a script that is written without spaces."""
    return bool(_UNSPACED.search(text))


def searchable(text: str) -> str:
    """Prepare text for the index: casefolded, and characters of unspaced scripts set apart."""
    return _UNSPACED.sub(r" \1 ", text.casefold())


def words_of(text: str) -> list[str]:
    """Give the words of a text in order, casefolded, repeated as they are; a run without spaces gives its pairs."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        for piece in _UNSPACED.sub(r"\0\1\0", word).replace("\0\0", "\1").split("\0"):
            characters = piece.split("\1")
            if len(characters) > 1:
                found += [first + second for first, second in itertools.pairwise(characters)]
            elif piece:
                found.append(piece)
    return found


def match_expression(text: str) -> str:
    """Make an FTS5 expression that finds passages with any of the words in ``text``; empty where it has none.

    Only letters and digits survive and every word is quoted, so operators, quotes and brackets mean nothing.
    """
    words = list(dict.fromkeys(words_of(text)))[:MAX_QUERY_WORDS]
    return " OR ".join(f'"{" ".join(searchable(word).split())}"' for word in words)
