"""What a question is about is told by its words alone."""

import pytest

from threadline_worker.agents.offline.assignment import Assignment, assignments_for
from threadline_worker.agents.offline.terms import Topic, stem, topic_of


@pytest.mark.parametrize(
    ("question", "subject", "aspects"),
    [
        ("What does psycopg offer for connection pooling?", "psycopg", ("connection pooling",)),
        ("How do I trace requests with OpenTelemetry in Python?", "OpenTelemetry", ("trace requests", "Python")),
        ("How do I validate data with pydantic?", "pydantic", ("validate data",)),
        ("Was bietet psycopg für Verbindungspools?", "psycopg", ("Verbindungspools",)),
        ("What's new?", "new", ()),
        ("Compare redis-py and valkey-py.", "redis-py", ("valkey-py",)),
        ("the of and", "the", ("of and",)),
        ("How does hypothesis generate test data?", "hypothesis", ("generate test data",)),
        ("如何使用连接池？", "如何使用连接池", ()),
        ("?", "", ()),
        ("", "", ()),
    ],
)
def test_subject_and_aspects(question: str, subject: str, aspects: tuple[str, ...]) -> None:
    assert topic_of(question) == Topic(subject, aspects)


def test_a_question_that_refers_back_borrows_the_subject() -> None:
    earlier = ("What does psycopg offer for connection pooling?", "And how do I close it?")
    assert topic_of("Does it support Windows?", earlier) == Topic("psycopg", ("Windows",))
    assert topic_of("What is LangGraph?", earlier) == Topic("LangGraph", ())


@pytest.mark.parametrize("words", ["pool pools pooling pooled", "trace traces tracing", "library libraries"])
def test_forms_of_a_word_share_a_stem(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


@pytest.mark.parametrize("question", ["What does psycopg offer for pooling?", "What is LangGraph?"])
def test_an_assignment_is_read_back_as_it_was_written(question: str) -> None:
    parts = assignments_for(question, topic_of(question))
    assert 2 <= len(parts) <= 3
    for number, part in enumerate(parts, start=1):
        assert Assignment.read(part.describe(number, len(parts), 1)) == part
    assert len({part.heading for part in parts}) == len(parts)


def test_a_task_in_any_other_words_is_a_question() -> None:
    assert Assignment.read("Find out about pools.") == Assignment("Find out about pools.", "Find out about pools.", ())
