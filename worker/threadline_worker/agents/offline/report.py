"""Composes the report from findings: every sentence of it that says something of the topic is quoted and cited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from threadline_worker.agents.offline.findings import Findings
from threadline_worker.agents.offline.ranking import Claim, same_claim
from threadline_worker.agents.offline.sentences import leans_on_another

NOTICE = (
    "No language model was used: this report was put together by the offline model of Threadline, which searches, "
    "ranks and quotes. Its sentences are the sources' own; it neither checks nor connects what they say."
)
SUMMARY_CLAIMS = 3


@dataclass(frozen=True, slots=True)
class Material:
    """All that a report is made of."""

    question: str
    sections: tuple[Findings, ...]
    missing: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()

    @property
    def claims(self) -> list[Claim]:
        """Every claim of every section."""
        return [claim for section in self.sections for claim in section.claims]


def draft_of(material: Material) -> str:
    """Write everything that was found, a line for each claim, for the critic to judge."""
    lines = [f"# {material.question}"]
    for section in material.sections:
        lines += ["", f"## {section.heading}", "", *(draft_line(claim) for claim in section.claims)]
    return "\n".join(lines)


def draft_line(claim: Claim) -> str:
    """Give the line of a claim in the draft."""
    return f"- {claim.text} [{claim.source}]"


def without(material: Material, removed: Collection[str], missing: Sequence[str]) -> Material:
    """Leave out the draft lines in ``removed``; of a line that stands there several times the first stays."""
    times = Counter(draft_line(claim) for claim in material.claims)
    seen = set[str]()
    sections: list[Findings] = []
    for section in material.sections:
        kept: list[Claim] = []
        for claim in section.claims:
            line = draft_line(claim)
            if line not in seen and (line not in removed or times[line] > 1):
                kept.append(claim)
            seen.add(line)
        best = section.best if section.best in kept else next(iter(kept), None)
        sections.append(replace(section, best=best, claims=tuple(kept)))
    return Material(material.question, tuple(sections), tuple(missing), material.earlier)


def report_of(material: Material) -> str:
    """Write the report: the question, a summary, a section for each sub-question with findings, and the limits."""
    lines = [f"# {material.question}", "", "## Summary", "", _summary(material)]
    for section in material.sections:
        if section.claims:
            lines += ["", f"## {section.heading}", "", *_by_source(section)]
    lines += _example(material)
    if material.earlier:
        lines += ["", "## Asked before", "", *(f"- {question}" for question in material.earlier)]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in _limits(material))]
    return "\n".join(lines) + "\n"


def _summary(material: Material) -> str:
    chosen: list[Claim] = []
    found = [section for section in material.sections if section.best]
    nearest = [section for section in found if section in material.sections[:2]] or found[:1]
    bests = [section.best for section in nearest if section.best]
    for claim in [*bests[:1], *(claim for section in found[:1] for claim in section.claims), *bests[1:]]:
        stands_alone = not chosen or not leans_on_another(claim.text)
        if stands_alone and not any(same_claim(claim.text, other.text) for other in chosen):
            chosen.append(claim)
    chosen = chosen[:SUMMARY_CLAIMS]
    if not chosen:
        return "The sources that were searched have nothing on this question."
    return " ".join(f"{claim.text} [{claim.source}]" for claim in chosen)


def _by_source(section: Findings) -> list[str]:
    """Put what one source says in one paragraph, under its name."""
    paragraphs: list[str] = []
    for source in dict.fromkeys(claim.source for claim in section.claims):
        said = " ".join(f"{claim.text} [{source}]" for claim in section.claims if claim.source == source)
        title = section.titles.get(source, "").strip()
        paragraphs.append(f"- **{title}** – {said}" if title else f"- {said}")
    return paragraphs


def _example(material: Material) -> list[str]:
    """Show the code that was found for the question itself, as it stands in its source."""
    section = next(iter(material.sections), None)
    if section is None or section.example is None:
        return []
    example = section.example
    return [
        "",
        "## Example",
        "",
        f"{section.titles.get(example.source, 'A source')} shows: [{example.source}]",
        "",
        "```",
        example.text,
        "```",
    ]


def _limits(material: Material) -> list[str]:
    limits = [NOTICE]
    if material.missing:
        limits.append(f"No sentence that could be quoted speaks of: {', '.join(material.missing)}.")
    empty = [section.heading for section in material.sections if not section.claims]
    if material.claims and empty:
        limits.append(f"Nothing more was found on: {'; '.join(empty)}.")
    limits += [f"A person asked for a change that takes a language model: {wish}" for wish in material.wishes]
    sources = len({claim.source for claim in material.claims})
    if sources:
        limits.append(f"It rests on {sources} passage{'s' if sources > 1 else ''}; other sources may say otherwise.")
    return limits
