"""What the offline model keeps under ``/memories/`` from job to job: each question, and where its answer stood."""

from __future__ import annotations

import hashlib
import re

from threadline_worker.agents.offline.conversation import Conversation
from threadline_worker.agents.offline.critic import file_text
from threadline_worker.agents.offline.report import Material
from threadline_worker.agents.offline.terms import stems, topic_of

FOLDER = "/memories/"
MAX_RECALLED = 3
_NAME_CHARS = 60
_LISTED = re.compile(r"/memories/[^'\"\]\n]+\.md")


def path_for(question: str) -> str:
    """Give the file of a question: a file each, so that two jobs of a user never overwrite each other's."""
    words = "-".join(re.findall(r"[^\W_]+", question.casefold()))[:_NAME_CHARS].rstrip("-")
    return f"{FOLDER}{words or 'question'}-{hashlib.sha256(question.encode()).hexdigest()[:6]}.md"


def related(conversation: Conversation) -> list[str]:
    """Pick the remembered files whose names share a term with the question, the closest first."""
    wanted = set(stems(" ".join(topic_of(conversation.question, conversation.earlier_questions).terms)))
    listed = {path for step in conversation.steps("ls") if not step.failed for path in _LISTED.findall(step.content)}
    listed.discard(path_for(conversation.question))
    shared = {path: len(wanted.intersection(stems(path))) for path in listed}
    return sorted((path for path in listed if shared[path]), key=lambda path: (-shared[path], path))[:MAX_RECALLED]


def recalled(conversation: Conversation) -> tuple[str, ...]:
    """Give the questions of the remembered files that were read."""
    reads = (step for step in conversation.steps("read_file") if not step.failed)
    texts = (file_text(step.content) for step in reads if str(step.args.get("file_path", "")).startswith(FOLDER))
    firsts = (text.lstrip().split("\n", 1)[0].removeprefix("# ").strip() for text in texts)
    return tuple(dict.fromkeys(first for first in firsts if first))


def memory_of(material: Material) -> str:
    """Write what is worth knowing when the user asks something close to this again."""
    titles = {source: title for section in material.sections for source, title in section.titles.items()}
    used = dict.fromkeys(titles[claim.source] for claim in material.claims if claim.source in titles)
    lines = [f"# {material.question}", "", *(f"- Answered from: {title}" for title in used)]
    if not used:
        lines.append("- The sources had nothing on it.")
    return "\n".join(lines) + "\n"
