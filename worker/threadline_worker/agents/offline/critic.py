"""The critic's part: reads the draft and says which lines lack a citation, repeat another, or miss the question."""

from __future__ import annotations

import re

from threadline_worker.agents.offline.conversation import Call, Conversation, Reply
from threadline_worker.agents.offline.ranking import same_claim
from threadline_worker.agents.offline.terms import stems

REMOVE = "Remove, "
MISSING = "Not covered: "
CITATION = re.compile(r"\s*\[[SW][0-9a-f]+(?:, [SW][0-9a-f]+)*\]")
_PATH = re.compile(r"^Draft: (\S+)$", re.MULTILINE)
_TERMS = re.compile(r"^Terms: (.+)$", re.MULTILINE)
_READ_HEADER = re.compile(r"^@@ .* @@$")


def task_for(path: str, question: str, terms: tuple[str, ...], job: int) -> str:
    """Put the critic's task into words."""
    return (
        f"Check the draft of the report on question {job} of this conversation.\n"
        f"Draft: {path}\nQuestion: {question}\nTerms: {' '.join(terms)}"
    )


def next_reply(conversation: Conversation) -> Reply:
    """Read the draft, then judge it; where it cannot be read, say so."""
    path = _PATH.search(conversation.question)
    if path and not conversation.turns and "read_file" in conversation.tools:
        return Reply(calls=(Call("read_file", {"file_path": path[1], "limit": 2000}),))
    read = next((step for step in conversation.steps("read_file") if not step.failed), None)
    if read is None:
        return Reply(text="The draft could not be read, so nothing was checked.")
    terms = _TERMS.search(conversation.question)
    return Reply(text=_judge(file_text(read.content), terms[1].split() if terms else []))


def file_text(content: str) -> str:
    """Take a file's own lines out of what ``read_file`` answers: they follow its header."""
    lines = content.splitlines()
    header = next((place for place, line in enumerate(lines) if _READ_HEADER.match(line)), -1)
    return "\n".join(lines[header + 1 :])


def bare(line: str) -> str:
    """Give a line of a draft without its bullet and its citations."""
    return CITATION.sub("", line).removeprefix("- ").strip()


def _judge(draft: str, terms: list[str]) -> str:
    claims = [line for line in draft.splitlines() if line.startswith("- ")]
    complaints: list[str] = []
    for place, line in enumerate(claims):
        if not CITATION.search(line):
            complaints.append(f"{REMOVE}no citation: {line}")
        elif any(same_claim(bare(line), bare(other)) for other in claims[:place]):
            complaints.append(f"{REMOVE}said before: {line}")
    said = set(stems("\n".join(line for line in draft.splitlines() if not line.startswith("#"))))
    missing = [term for term in terms if not said.intersection(stems(term))]
    if missing:
        complaints.append(f"{MISSING}{', '.join(missing)}")
    checked = f"I checked {len(claims)} claims."
    return "\n".join([checked, *complaints] if complaints else [checked, "Each has a citation and none is repeated."])
