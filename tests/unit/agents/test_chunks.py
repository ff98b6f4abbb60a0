"""Cutting a text loses nothing, keeps passages small and knows what they stand under."""

from hypothesis import given
from hypothesis import strategies as st

from threadline_worker.agents.research.chunks import HARD_LIMIT_CHARS, TARGET_CHARS, split_text, title_of

MARKDOWN = """# The Pool

Opens connections.

## Closing

Close it with `close()`.

```python
# not a heading

pool.close()
```
"""

RST = """
========
The Pool
========

Opens connections.

Closing
-------

Close it.
"""


def test_markdown_headings_name_the_passages_below_them() -> None:
    assert [(chunk.heading, chunk.text.splitlines()[0]) for chunk in split_text(MARKDOWN)] == [
        ("The Pool", "Opens connections."),
        ("Closing", "Close it with `close()`."),
    ]


def test_a_code_block_is_kept_whole_and_its_comments_are_no_headings() -> None:
    assert "# not a heading\n\npool.close()" in split_text(MARKDOWN)[1].text


def test_restructuredtext_headings_are_known() -> None:
    assert [(chunk.heading, chunk.text) for chunk in split_text(RST)] == [
        ("The Pool", "Opens connections."),
        ("Closing", "Close it."),
    ]


def test_titles() -> None:
    assert title_of(MARKDOWN) == "The Pool"
    assert title_of(RST) == "The Pool"
    assert title_of("<h1 align='center'>The &amp; <em>Pool</em></h1>\n\n## Closing") == "The & Pool"
    assert title_of("## Closing\n\nText.") == ""


@given(st.lists(st.text(alphabet="ab é,\n", min_size=1, max_size=900), max_size=12).map("\n\n".join))
def test_no_word_is_lost_and_no_passage_is_too_long(text: str) -> None:
    chunks = split_text(text)
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
    assert all(len(chunk.text) <= HARD_LIMIT_CHARS + 2 for chunk in chunks)


def test_long_paragraphs_are_cut_between_sentences() -> None:
    text = "This sentence is repeated. " * 200
    chunks = split_text(text)
    assert all(TARGET_CHARS // 2 <= len(chunk.text) <= HARD_LIMIT_CHARS for chunk in chunks)
    assert all(chunk.text.rstrip().endswith(".") for chunk in chunks)
