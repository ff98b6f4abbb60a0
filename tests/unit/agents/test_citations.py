"""Every citation that a report keeps resolves to a source that a tool returned, and the text around it is untouched."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline_worker.agents.research.citations import check_citations
from threadline_worker.agents.research.state import Source

KNOWN: dict[str, Source] = {
    source_id: {"id": source_id, "title": f"Title {source_id}", "location": f"{source_id}.md"}
    for source_id in ("S3f2a10bc", "S00000001", "Wabcdef01")
}


def test_citations_become_numbers_in_order_of_first_appearance() -> None:
    checked = check_citations("# Q\n\nOne. [Wabcdef01] Two. [S3f2a10bc] One again. [Wabcdef01]\n", KNOWN)
    assert checked.text == (
        "# Q\n\nOne. [1] Two. [2] One again. [1]\n\n## Sources\n\n"
        "1. Title Wabcdef01 (Wabcdef01.md)\n2. Title S3f2a10bc (S3f2a10bc.md)\n"
    )
    assert [source["id"] for source in checked.sources] == ["Wabcdef01", "S3f2a10bc"]
    assert checked.removed == ()


def test_lists_of_citations_are_split_and_cleaned() -> None:
    checked = check_citations("Claim [S3f2a10bc, Sdeadbeef; S00000001, S3f2a10bc].", KNOWN)
    assert checked.text.startswith("Claim [1][2].")
    assert checked.removed == ("Sdeadbeef",)


@pytest.mark.parametrize(
    ("report", "text", "removed"),
    [
        ("Claim [Sdeadbeef].", "Claim.\n", ("Sdeadbeef",)),
        ("Claim. [Sdeadbeef]", "Claim.\n", ("Sdeadbeef",)),
        ("Claim[1] and more [2, 3].", "Claim and more.\n", ("1", "2", "3")),
        ("Claim [^7].", "Claim.\n", ("7",)),
        ("Claim [S12].", "Claim.\n", ("S12",)),
    ],
)
def test_citations_without_a_source_are_removed_and_told(report: str, text: str, removed: tuple[str, ...]) -> None:
    checked = check_citations(report, KNOWN)
    assert (checked.text, checked.removed, checked.sources) == (text, removed, ())


@pytest.mark.parametrize(
    "text",
    [
        "A [link](http://x) and [1](http://x) and [S3f2a10bc](http://x).",
        "[1]: http://reference",
        "- [ ] open\n- [x] done",
        "W3C says [W3C], Amazon says [S3], a [See] and a [Sad] word, and [sic].",
        "```python\nvalues[1] = other[S00000001]\n```",
        "Inline `values[1]` and ``values[2] ` [3]``.",
        "~~~\n[S3f2a10bc]\n~~~",
        "```\nnever closed [1]",
        "far" + " " * 200_000 + "apart",  # in time that grows with its length
    ],
)
def test_links_references_and_code_are_left_alone(text: str) -> None:
    checked = check_citations(text, KNOWN)
    assert (checked.text, checked.removed) == (f"{text}\n", ())


def test_a_list_of_sources_that_the_report_brings_is_replaced_by_the_checked_one() -> None:
    report = (
        "# Q\n\nClaim. [S3f2a10bc]\n\n## References\n\n1. Made up [S00000001]\n\n### More\n\nx\n\n## Limits\n\nNone."
    )
    text = check_citations(report, KNOWN).text
    assert "Made up" not in text
    assert "More" not in text
    assert "## Limits\n\nNone.\n\n## Sources\n\n1. Title S3f2a10bc" in text
    assert text.count("## Sources") == 1


def test_a_source_without_a_title_is_listed_by_its_location_and_on_one_line() -> None:
    known: dict[str, Source] = {
        "S01": {"id": "S01", "title": "", "location": "a.md"},
        "S02": {"id": "S02", "title": "A\nB", "location": "b.md"},
    }
    assert check_citations("x [S01] y [S02]", known).text.endswith("1. a.md\n2. A B (b.md)\n")


IDS = st.sampled_from([*KNOWN, "Sdeadbeef", "W00000000", "7", "S12"])
PIECES = st.one_of(
    st.text(alphabet="ab .\n#*-", max_size=12),
    st.lists(IDS, min_size=1, max_size=4).map(lambda ids: f"[{', '.join(ids)}]"),
)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_what_remains_always_resolves(report: str) -> None:
    checked = check_citations(report, KNOWN)
    body, _, listed = checked.text.partition("\n## Sources\n")
    cited = [int(number) for number in re.findall(r"\[(\d+)\]", body)]
    assert list(dict.fromkeys(cited)) == list(range(1, len(checked.sources) + 1))
    assert len(re.findall(r"^\d+\. ", listed, re.MULTILINE)) == len(checked.sources)
    assert not set(checked.removed) & set(KNOWN)
    assert all(source_id not in body for source_id in KNOWN)


@given(st.text())
def test_any_text_can_be_checked(report: str) -> None:
    check_citations(report, KNOWN)
