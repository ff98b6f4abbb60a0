"""Splits a question into sub-questions by its terms alone, and puts each into words that a researcher reads back."""

from __future__ import annotations

from dataclasses import dataclass

from threadline_worker.agents.offline.terms import Topic

_FIELDS = ("Sub-question", "Whole question", "Look for", "Must mention", "Leave out what is about")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one researcher is to find out: terms to look for, a word to insist on, a subject that others cover."""

    heading: str
    question: str
    terms: tuple[str, ...]
    must_mention: str = ""
    leave_out: str = ""

    def describe(self, number: int, of: int, job: int) -> str:
        """Put it into words; ``job`` counts the thread's questions, so a repeated question is told from the first."""
        values = (self.heading, self.question, " ".join(self.terms), self.must_mention, self.leave_out)
        lines = [f"{label}: {value}" for label, value in zip(_FIELDS, values, strict=True) if value]
        return "\n".join([f"Part {number} of {of}, question {job} of this conversation.", *lines])

    @classmethod
    def read(cls, text: str) -> Assignment:
        """Read a task's words; a task of any other form is a question by itself."""
        given = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        if "Look for" not in given:
            return cls(heading=text.strip(), question=text.strip(), terms=())
        heading, question, terms, must_mention, leave_out = (given.get(label, "").strip() for label in _FIELDS)
        return cls(heading, question or heading, tuple(terms.split()), must_mention, leave_out)


def assignments_for(question: str, topic: Topic) -> list[Assignment]:
    """Give two or three: the subject with all that is asked of it, the subject itself, and the rest without it."""
    asked = " ".join(question.split())
    subject, aspects = topic.subject, ", ".join(topic.aspects)
    aspect_terms = tuple(word for phrase in topic.aspects for word in phrase.split())
    if not topic.aspects:
        own = Assignment(subject, asked, topic.terms, must_mention=subject)
        return [own, Assignment(f"{subject} as others mention it", asked, topic.terms, leave_out=subject)]
    return [
        Assignment(f"{subject}: {aspects}", asked, topic.terms, must_mention=subject),
        Assignment(f"{subject} in general", asked, tuple(subject.split()), must_mention=subject),
        Assignment(f"{aspects[:1].upper()}{aspects[1:]}, beyond {subject}", asked, aspect_terms, leave_out=subject),
    ]
