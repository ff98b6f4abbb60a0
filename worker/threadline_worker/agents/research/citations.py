"""Checks every citation of a report against the sources that tools returned; what it lets through resolves.

``[S3f2a10bc]`` and lists such as ``[S3f2a10bc, W0a1b2c3d]`` are citations; so is a bare ``[3]``, which no tool ever
returned and which would be taken for one of the final numbers. Code is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from threadline_worker.agents.research.state import Source

_ID = r"[SW](?=[0-9a-f]*[0-9]|[0-9a-f]{6})[0-9a-f]{2,64}"
_ITEM = rf"(?:{_ID}|[0-9]{{1,3}})"
_CITATION = re.compile(rf"(?:(?<![ \t])[ \t]+)?\[\s*\^?({_ITEM}(?:\s*[,;]\s*\^?{_ITEM})*)\s*\](?![(:])")
_CODE = re.compile(
    r"^(?P<fence>[ \t]*(?:```|~~~))[\s\S]*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)|(`+)(?!`)[^\n]*?(?<!`)\2(?!`)", re.MULTILINE
)
_SOURCES_HEADING = re.compile(r"^(#{1,6})\s*(?:sources|references|bibliography)\s*:?\s*#*\s*$", re.IGNORECASE)
_HEADING = re.compile(r"^(#{1,6})\s")
_FENCE = re.compile(r"^\s*(```|~~~)")


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A report whose citations are numbers of ``sources``; ``removed`` are those that named no source, in order."""

    text: str
    sources: tuple[Source, ...]
    removed: tuple[str, ...]


@dataclass(slots=True)
class _Numbers:
    """Gives each cited source its number, by first appearance."""

    known: Mapping[str, Source]
    cited: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def renumber(self, match: re.Match[str]) -> str:
        numbers: list[int] = []
        for item in re.split(r"\s*[,;]\s*", match[1]):
            source_id = item.lstrip("^")
            if source_id not in self.known:
                self.removed.append(source_id)
            elif (number := self.cited.setdefault(source_id, len(self.cited) + 1)) not in numbers:
                numbers.append(number)
        space = match[0][: len(match[0]) - len(match[0].lstrip())]
        return space + "".join(f"[{number}]" for number in numbers) if numbers else ""


def check_citations(report: str, known: Mapping[str, Source]) -> CheckedReport:
    """Remove citations without a source, number the others in order of first appearance, append ``## Sources``.

    A list of sources that the report brings itself is dropped: only the checked one is shown.
    """
    numbers = _Numbers(known)
    body = _outside_code(_without_own_sources(report), numbers).rstrip()
    sources = tuple(known[source_id] for source_id in numbers.cited)
    if sources:
        listed = "\n".join(f"{number}. {_entry(source)}" for number, source in enumerate(sources, start=1))
        body = f"{body}\n\n## Sources\n\n{listed}"
    return CheckedReport(f"{body}\n", sources, tuple(numbers.removed))


def _outside_code(text: str, numbers: _Numbers) -> str:
    done, pieces = 0, list[str]()
    for code in _CODE.finditer(text):
        pieces += [_CITATION.sub(numbers.renumber, text[done : code.start()]), code[0]]
        done = code.end()
    pieces.append(_CITATION.sub(numbers.renumber, text[done:]))
    return "".join(pieces)


def _without_own_sources(report: str) -> str:
    kept: list[str] = []
    rank, fence = 0, ""
    for line in report.splitlines():
        if match := _FENCE.match(line):
            fence = "" if fence == match[1] else fence or match[1]
        elif not fence and (heading := _SOURCES_HEADING.match(line)):
            rank = len(heading[1])
        elif not fence and rank and (heading := _HEADING.match(line)) and len(heading[1]) <= rank:
            rank = 0
        if not rank:
            kept.append(line)
    return "\n".join(kept)


def _entry(source: Source) -> str:
    title, location = (" ".join(source[key].split()) for key in ("title", "location"))
    return location if title in {"", location} else f"{title} ({location})"
