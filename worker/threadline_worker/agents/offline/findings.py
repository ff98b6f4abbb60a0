"""What a researcher hands to its leader, as text that a person reads and the leader reads back without loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from threadline_worker.agents.offline.ranking import Claim

_CLAIM = re.compile(r"^- (?P<text>.+) \[(?P<source>[SW][0-9a-f]+)\]$")
_SOURCE = re.compile(r"^- \[(?P<source>[SW][0-9a-f]+)\] (?P<title>.+) <(?P<location>[^<>]*)>$")
_EXAMPLE = re.compile(r"^Example from \[(?P<source>[SW][0-9a-f]+)\]:\n\n```\n(?P<code>[\s\S]*?)\n```$", re.MULTILINE)
_BEST = "Most to the point: "
_HEAD = "Findings on: "
_MISSING = "No source speaks of: "


@dataclass(frozen=True, slots=True)
class Findings:
    """The claims on one sub-question in the order to read them, the best of them, and what no source spoke of."""

    heading: str
    best: Claim | None
    claims: tuple[Claim, ...]
    titles: Mapping[str, str]
    missing: tuple[str, ...]
    example: Claim | None = None


def write_findings(findings: Findings, locations: Mapping[str, str]) -> str:
    """Write findings as text; only the sources of the claims are listed."""
    lines = [f"{_HEAD}{findings.heading}", ""]
    if findings.best:
        lines += [f"{_BEST}{_cited(findings.best)}", ""]
    lines += [f"- {_cited(claim)}" for claim in findings.claims] or ["Nothing was found."]
    if findings.example:
        lines += ["", f"Example from [{findings.example.source}]:", "", "```", findings.example.text, "```"]
    shown = [*findings.claims, *([findings.example] if findings.example else [])]
    if used := list(dict.fromkeys(claim.source for claim in shown)):
        lines += ["", "Where it stands:", ""]
        lines += [f"- [{source}] {findings.titles[source]} <{locations.get(source, '')}>" for source in used]
    if findings.missing:
        lines += ["", f"{_MISSING}{', '.join(findings.missing)}"]
    return "\n".join(lines)


def read_findings(text: str, heading: str) -> Findings:
    """Read findings back; lines of any other form are left out, and ``heading`` stands in for a missing one."""
    example = _EXAMPLE.search(text)
    lines = _EXAMPLE.sub("", text).splitlines()
    claims = [Claim(match["text"], match["source"]) for match in map(_CLAIM.match, lines) if match]
    titles = {match["source"]: match["title"] for match in map(_SOURCE.match, lines) if match}
    best = next(iter(_after(lines, _BEST)), "")
    match = _CLAIM.match(f"- {best}")
    return Findings(
        heading=next(iter(_after(lines, _HEAD)), heading),
        best=Claim(match["text"], match["source"]) if match else next(iter(claims), None),
        claims=tuple(claims),
        titles=titles,
        missing=tuple(term for found in _after(lines, _MISSING) for term in found.split(", ") if term),
        example=Claim(example["code"], example["source"]) if example else None,
    )


def _after(lines: Sequence[str], label: str) -> list[str]:
    return [line.removeprefix(label) for line in lines if line.startswith(label)]


def _cited(claim: Claim) -> str:
    return f"{claim.text} [{claim.source}]"
