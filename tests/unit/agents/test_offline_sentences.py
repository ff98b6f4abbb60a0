"""Only whole sentences are quoted, without markup, and none that sell, license or install."""

from hypothesis import given
from hypothesis import strategies as st

from threadline_worker.agents.offline.ranking import Claim, Passage, best_claims, best_example, covered
from threadline_worker.agents.offline.sentences import code_blocks, is_boilerplate, sentences

MARKDOWN = """[![Build](https://img/badge.svg)](https://ci) ![Logo](logo.png)
[![PyPI][pypi]][link]

# A heading that is not a sentence at all.

The **pool** opens [its connections](https://x/y_(z)) in the `background`, e.g. at
the start. It is <b>fast</b> and small enough for all.

> [!NOTE]
> Closing the pool waits for its workers to end.

| Column | Other column of the table |
|--------|---------------------------|

- It reconnects by itself after every failure.
- too short.

```python
print("This is code. It is not a sentence.")
```

[pypi]: https://packages.example/project/x.
"""

RST = """
The Pool
========

This ``pool`` is described in `the manual`__ and the :class:`~pool.Pool` class.

.. __: https://example.org/manual. This is no sentence either.
.. image:: https://badge.svg
   :alt: A badge with an alternative text.

.. note::

   Despite its name, psycopg2_ is not the second one of its kind.

Start it with the following lines of code::

    pool = Pool()
    pool.open()

After the code comes another whole sentence.
"""


def test_markdown() -> None:
    assert sentences(MARKDOWN) == [
        "The pool opens its connections in the `background`, e.g. at the start.",
        "It is fast and small enough for all.",
        "Closing the pool waits for its workers to end.",
        "It reconnects by itself after every failure.",
    ]


def test_restructuredtext() -> None:
    assert sentences(RST) == [
        "This `pool` is described in the manual and the `pool.Pool` class.",
        "Despite its name, psycopg2 is not the second one of its kind.",
        "After the code comes another whole sentence.",
    ]


def test_code_is_found_in_both() -> None:
    assert code_blocks(MARKDOWN) == ['print("This is code. It is not a sentence.")']
    assert code_blocks(RST) == ["pool = Pool()\npool.open()"]


def test_scripts_without_spaces_have_sentences_too() -> None:
    assert sentences("连接池可以重复使用数据库连接。它还能限制连接的数量。") == [
        "连接池可以重复使用数据库连接。",
        "它还能限制连接的数量。",
    ]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    sentences(text)
    code_blocks(text)


def test_boilerplate_is_what_nobody_asked_for() -> None:
    sentence = "You can install the package from the index at any time."
    assert is_boilerplate(sentence, {"pool"})
    assert not is_boilerplate(sentence, {"install"})
    assert not is_boilerplate("The pool opens its connections at once.", {"pool"})


PASSAGES = [
    Passage(
        "S1", "Weaver Pool", "pool.md", "The weather is fine today in the hills. The pool opens its connections early."
    ),
    Passage(
        "S2", "Copy", "copy.md", "The pool opens all its connections early. The licence of the pool is a free one."
    ),
    Passage("S3", "Looms", "looms.md", "Looms are tended at night by quiet people."),
    Passage("S4", "Weaver 1.2.3", "changes.md", "The pool no longer leaks its connections."),
]


def test_the_best_sentences_are_on_the_terms_and_say_nothing_twice() -> None:
    claims = best_claims(PASSAGES, ["pool", "connections"], "How does the pool open connections?", limit=5)
    assert claims[0] == Claim("The pool opens its connections early.", "S1")
    assert {claim.source for claim in claims} == {"S1", "S4"}
    assert claims[-1].source != "S3"


def test_more_terms_may_be_asked_for() -> None:
    claims = best_claims(PASSAGES, ["pool", "night"], "?", limit=5, least=2)
    assert claims == []


def test_nothing_to_choose_from_gives_nothing() -> None:
    assert best_claims([], ["pool"], "pool?", limit=5) == []
    assert best_claims(PASSAGES, [], "?", limit=0) == []
    assert best_example([], [], "?") is None


def test_covered_terms_are_those_said() -> None:
    assert covered(["pooling", "night"], [Claim("Pools are fine.", "S1")]) == {"pooling"}
