"""Picks the sentences of some passages that answer a question best; the same passages always give the same ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from threadline_worker.agents.offline.sentences import code_blocks, is_boilerplate, leans_on_another, sentences
from threadline_worker.agents.offline.terms import content_stems, stems, topic_of

SAME_SHARE = 0.6
TITLE_WEIGHT = 0.5
PLACE_WEIGHT = 0.15
POINTING_WEIGHT = 1.0
CHANGELOG_WEIGHT = 2.0
WHOLE_QUESTION_WEIGHT = 0.4
MAX_PER_SOURCE = 3
MIN_CODE_LINES, MAX_CODE_LINES = 2, 25


# What was true of one release says little of what is true now.
_CHANGELOG = re.compile(
    r"\b\d+\.\d+\.\d+\b|\b\d{4}-\d\d-\d\d\b|\b(?:changes|changelog|release notes|news)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A text with the id that cites it."""

    id: str
    title: str
    location: str
    text: str

    @property
    def name_stems(self) -> set[str]:
        """The stems of what the passage is called."""
        return set(stems(f"{self.title} {self.location}"))


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence with the source that it stands in."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    claim: Claim
    words: frozenset[str]
    place: tuple[int, int]


def best_claims(
    passages: Sequence[Passage], terms: Sequence[str], question: str, *, limit: int, least: int = 1
) -> list[Claim]:
    """Pick at most ``limit`` sentences, best first: on the terms, not boilerplate, none that repeats another.

    ``least`` is how many of the terms a sentence and the name of its source must have between them.
    """
    wanted = set(stems(" ".join(terms)))
    asked = _asked(question)
    candidates = [entry for place, passage in enumerate(passages) for entry in _candidates(passage, place, asked)]
    names = {passage.id: wanted & passage.name_stems for passage in passages}
    news = {passage.id for passage in passages if _CHANGELOG.search(f"{passage.title} {passage.location}")}
    fitting = [entry for entry in candidates if len((entry.words & wanted) | names[entry.claim.source]) >= least]
    scores = _scores(fitting, wanted, set(stems(question)) - wanted, names, news)
    ranked = sorted(zip(scores, fitting, strict=True), key=lambda scored: (-scored[0], scored[1].place))
    return _distinct([entry for _, entry in ranked], limit)


def best_example(passages: Sequence[Passage], claims: Sequence[Claim], question: str) -> Claim | None:
    """Pick a code block from the sources of the claims: the most of the question's terms, then the best claim's own."""
    asked = _asked(question)
    order = {source: place for place, source in enumerate(dict.fromkeys(claim.source for claim in claims))}
    blocks = [
        Claim(code, passage.id)
        for passage in sorted((one for one in passages if one.id in order), key=lambda one: order[one.id])
        for code in code_blocks(passage.text)
        if MIN_CODE_LINES <= len(code.splitlines()) <= MAX_CODE_LINES and not is_boilerplate(code, asked)
    ]
    best = max(blocks, key=lambda block: len(asked.intersection(stems(block.text))), default=None)
    related = best is not None and (order[best.source] == 0 or asked.intersection(stems(best.text)))
    return best if related else None


def quotable(text: str, question: str) -> bool:
    """Tell whether a text has a sentence that may be quoted."""
    asked = _asked(question)
    return any(not is_boilerplate(sentence, asked) for sentence in sentences(text))


def covered(terms: Sequence[str], claims: Sequence[Claim], names: Sequence[str] = ()) -> set[str]:
    """Tell which of the terms appear in the claims or in the names of their sources."""
    said = set(stems(" ".join([*(claim.text for claim in claims), *names])))
    return {term for term in terms if said.intersection(stems(term))}


def same_claim(one: str, other: str) -> bool:
    """Tell whether two sentences say much the same, by the share of words they have in common."""
    return _overlap(content_stems(one), content_stems(other)) >= SAME_SHARE


def _asked(question: str) -> set[str]:
    return set(stems(" ".join(topic_of(question).terms)))


def _candidates(passage: Passage, place: int, asked: set[str]) -> list[_Candidate]:
    return [
        _Candidate(Claim(sentence, passage.id), frozenset(stems(sentence)), (place, line))
        for line, sentence in enumerate(sentences(passage.text))
        if not is_boilerplate(sentence, asked)
    ]


def _scores(
    fitting: Sequence[_Candidate], wanted: set[str], rest: set[str], names: dict[str, set[str]], news: set[str]
) -> list[float]:
    """Score by BM25 on the terms, then what the source is called, then the place: first passages, first sentences."""
    if not fitting:
        return []
    from rank_bm25 import BM25Plus  # noqa: PLC0415 - brings numpy, which nobody needs before the first question

    index = BM25Plus([sorted(entry.words) for entry in fitting])
    on_terms, on_rest = index.get_scores(sorted(wanted)), index.get_scores(sorted(rest))
    return [
        float(on_terms[number])
        + WHOLE_QUESTION_WEIGHT * float(on_rest[number])
        + TITLE_WEIGHT * len(names[entry.claim.source])
        - PLACE_WEIGHT * (entry.place[0] + entry.place[1])
        - POINTING_WEIGHT * leans_on_another(entry.claim.text)
        - CHANGELOG_WEIGHT * (entry.claim.source in news)
        for number, entry in enumerate(fitting)
    ]


def _distinct(ranked: Sequence[_Candidate], limit: int) -> list[Claim]:
    chosen: list[_Candidate] = []
    for entry in ranked:
        of_source = sum(other.claim.source == entry.claim.source for other in chosen)
        repeats = any(same_claim(entry.claim.text, other.claim.text) for other in chosen)
        if not repeats and of_source < MAX_PER_SOURCE:
            chosen.append(entry)
        if len(chosen) == limit:
            break
    return [entry.claim for entry in chosen]


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, min(len(one), len(other)))
