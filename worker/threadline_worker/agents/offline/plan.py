"""The sub-questions of a plan: the question's own, and what a person who rejected or changed the plan made of them."""

from __future__ import annotations

from collections.abc import Sequence

from threadline_worker.agents.offline.assignment import Assignment, assignments_for
from threadline_worker.agents.offline.conversation import Conversation
from threadline_worker.agents.offline.terms import Topic, topic_of

RESEARCH = "Research: "
_HEADING_CHARS = 200


def planned(conversation: Conversation, question: str, topic: Topic) -> Sequence[Assignment]:
    """Give what to research: a reason for a rejection is one more part, a rejection without one takes a part away."""
    parts = assignments_for(question, topic)
    for reason in conversation.rejected("write_todos"):
        wish = _part(reason, question)
        parts = [*parts, wish] if wish else parts[:-1] or parts
    return _as_edited(conversation, question, parts) or parts


def _as_edited(conversation: Conversation, question: str, parts: Sequence[Assignment]) -> list[Assignment]:
    """Give the parts of the plan as a person changed it; none where nobody did."""
    edited = next((step for step in conversation.steps("write_todos") if step.decision == "edit"), None)
    if edited is None:
        return []
    known = {part.heading: part for part in parts}
    texts = [str(todo.get("content", "")) for todo in edited.args.get("todos", []) if isinstance(todo, dict)]
    headings = [text.removeprefix(RESEARCH).strip() for text in texts if text.startswith(RESEARCH)]
    return [part for heading in headings if (part := known.get(heading) or _part(heading, question))]


def _part(heading: str, question: str) -> Assignment | None:
    line = " ".join(heading.split())[:_HEADING_CHARS]
    topic = topic_of(line)
    return Assignment(line, question, topic.terms) if topic.subject else None
