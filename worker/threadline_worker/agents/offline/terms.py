"""Finds what a question is about by its words alone: the subject, and the phrases it is asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from threadline_worker.agents.words import words_of

# Words that carry no topic, in the languages most questions come in. For others everything counts as a topic, which
# the ranking then weighs by rarity.
_STOPWORDS = frozenset((files(__package__) / "stopwords.txt").read_text(encoding="utf-8").split())
_REFERS_BACK = frozenset(
    {
        "it",
        "its",
        "that",
        "them",
        "they",
        "this",
        "those",
        "these",
        "there",
        "es",
        "das",
        "dies",
        "diese",
        "dieser",
        "davon",
        "damit",
        "dazu",
        "cela",
        "ça",
        "il",
        "elle",
        "eso",
        "esto",
        "ello",
    }
)
_GOES_ON = frozenset({"and", "but", "also", "or", "und", "aber", "oder", "et", "mais", "y", "pero"})
# German writes every noun with a capital, so there a capital marks no name.
_GERMAN = frozenset(
    {"der", "und", "ist", "wie", "für", "mit", "ein", "eine", "bei", "von", "zu", "im", "das", "gibt", "kann"}
)
_TOKEN = re.compile(r"[^\W_]+(?:[._+#-]+[^\W_]+)*[+#]*")
_TOOL = re.compile(r"\b(?:with|using|via|mit|avec|con)\s+([^\W_]+)", re.IGNORECASE)
_SUFFIXES = ("ingly", "ings", "ing", "edly", "ies", "ed", "es", "s", "e", "y")
_MIN_STEM = 3
MAX_SUBJECT_WORDS = 2
# A question is short; of a whole document pasted in, its beginning has to do.
MAX_QUESTION_CHARS, MAX_PHRASES = 1_000, 8


@dataclass(frozen=True, slots=True)
class Topic:
    """A question's subject and the phrases asked about it; both empty where a question has no words at all."""

    subject: str
    aspects: tuple[str, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """Every word of the topic once, the subject's first."""
        return tuple(dict.fromkeys(word for phrase in (self.subject, *self.aspects) for word in phrase.split()))


def stem(word: str) -> str:
    """Cut a word to what its forms share; crude, and the same for all forms of most words."""
    folded = word.casefold()
    for suffix in _SUFFIXES:
        if folded.endswith(suffix) and len(folded) - len(suffix) >= _MIN_STEM:
            return folded[: -len(suffix)]
    return folded


def stems(text: str) -> list[str]:
    """Give the stem of every word of a text, in order; a name such as ``redis-py`` also counts by its parts."""
    return [stem(word) for word in words_of(text)]


def content_stems(text: str) -> frozenset[str]:
    """Give the stems of a text's words but for those that carry no topic."""
    return frozenset(stem(word) for word in words_of(text) if word not in _STOPWORDS)


def topic_of(question: str, earlier: tuple[str, ...] = ()) -> Topic:
    """Find the topic of a question; one that refers back, or has none, borrows the subject of the one before it."""
    question = question[:MAX_QUESTION_CHARS]
    phrases = _phrases(question)[:MAX_PHRASES]
    words = [token.casefold() for token in _TOKEN.findall(question)]
    if earlier and (not phrases or _REFERS_BACK.intersection(words) or words[0] in _GOES_ON):
        before = topic_of(earlier[-1], earlier[:-1]).subject
        if before and before.casefold() not in words:
            return Topic(before, tuple(phrases))
    phrases = phrases or [" ".join(_TOKEN.findall(question))]
    tool = _TOOL.search(question)
    means = [phrase for phrase in phrases if tool and phrase.split()[0] == tool[1]]
    subject = _subject(phrases, means, names_are_capitals=not _GERMAN.intersection(words))
    aspects = [phrase for phrase in phrases if phrase != subject]
    first, *rest = subject.split() or [""]
    if len(rest) >= MAX_SUBJECT_WORDS:  # a whole statement: what it begins with is the best guess at its subject
        return Topic(first, (" ".join(rest), *aspects))
    return Topic(subject, tuple(aspects))


def _phrases(question: str) -> list[str]:
    """Group words that stand next to each other; a word without a topic, or punctuation, ends a group."""
    tokens = [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(question)]
    kept = [token for token in tokens if token[0].casefold() not in _STOPWORDS]
    phrases: list[list[str]] = []
    end = -1
    for word, start, stop in kept:
        joined = phrases and not question[end:start].strip() and not _is_name(word) and not _is_name(phrases[-1][-1])
        if joined:
            phrases[-1].append(word)
        else:
            phrases.append([word])
        end = stop
    return list(dict.fromkeys(" ".join(phrase) for phrase in phrases))


def _is_name(word: str) -> bool:
    """Tell a name such as OpenTelemetry, redis-py, HTTP or psycopg3 by what stands in it after its first letter."""
    return word[:1].isalpha() and any(sign.isupper() or sign.isdigit() or sign in "._+#-" for sign in word[1:])


def _subject(phrases: list[str], means: list[str], *, names_are_capitals: bool) -> str:
    """Take what looks most like a name, then what something is to be done with, then a capital, then the first."""
    names = [phrase for phrase in phrases if _is_name(phrase)]
    capitals = [phrase for phrase in phrases[1:] if names_are_capitals and phrase[:1].isupper()]
    return next(iter([*names, *means, *capitals, *phrases]), "")
