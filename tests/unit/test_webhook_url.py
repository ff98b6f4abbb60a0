"""A webhook's URL is refused before anything is stored, by a sentence that does not repeat it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.contract.codec import dumps, loads
from threadline.contract.job import JobRequest, decode_request
from threadline.contract.webhook import check_webhook_url
from threadline.errors import InvalidJob

USUAL: dict[str, Any] = {"job_id": "j1", "agent": "research", "input": "What?", "thread_id": "t1"}


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/threadline",
        "HTTPS://hooks.example",
        "https://hooks.example:8443/a?token=%22x%22&b=1",
        "https://[2606:4700::1111]:8443/",
        "http://hooks.internal/",  # whether it is allowed, the workers know
        "https://10.0.0.5/",
    ],
)
def test_a_full_url_is_taken_as_it_is(url: str) -> None:
    assert check_webhook_url(url) == url
    asked = decode_request({**USUAL, "webhook_url": url})
    assert asked.options()["webhook_url"] == url
    assert decode_request(loads(dumps(asked))) == asked


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        (7, "webhook_url is a int: give a str"),
        ("", "begins with https://"),
        ("hooks.example/x", "begins with https://"),
        ("ftp://hooks.example/", "begins with https://"),
        ("javascript:alert(1)", "begins with https://"),
        ("https://me:secret@hooks.example/", "holds a user or password"),
        ("https://secret@hooks.example/", "holds a user or password"),
        ("https:///path?secret", "names no host"),
        ("https://?secret", "names no host"),
        ("https://a%2eb/?secret", "names no host"),
        ("https://hooks.example:99999/?secret", "port cannot be read"),
        ("https://[::1/?secret", "port cannot be read"),
        ("https://hooks.example/#secret", "never sent"),
        ("https://hooks.example/a b?secret", "characters that no URL has"),
        ("https://hooks.example\\@secret/", "characters that no URL has"),
        ('https://hooks.example/"secret', "characters that no URL has"),
        ("https://hööks.example/?secret", "characters that no URL has"),
        ("https://hooks.example/\r\nsecret: x", "characters that no URL has"),
        ("https://hooks.example/\0secret", "characters that no URL has"),
        ("https://hooks.example/?secret=" + "x" * 2000, "at most 2,000 are allowed"),
    ],
)
def test_a_broken_rule_is_named_and_the_url_is_not_repeated(url: Any, rule: str) -> None:
    with pytest.raises(InvalidJob, match=re.escape(rule)) as caught:
        JobRequest(**USUAL, webhook_url=url).check()
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60).map("https://h/".__add__) | st.text(max_size=60))
def test_what_is_taken_can_be_read_out_of_the_options_by_pattern(url: str) -> None:
    """As the ledger's trigger does, which must not parse the JSON."""
    try:
        asked = JobRequest(**USUAL, webhook_url=url, interrupt_before=['"webhook_url":"https://other/"']).check()
    except InvalidJob:
        return
    found = re.search(r'"webhook_url"\s*:\s*"([^"\\]+)"', dumps(asked.options()).decode())
    assert found
    assert found[1] == url


def test_it_is_part_of_the_request_and_absent_where_it_is_not_wanted() -> None:
    none, one, other = (JobRequest(**USUAL, webhook_url=url) for url in (None, "https://a/", "https://b/"))
    assert len({asked.fingerprint() for asked in (none, one, other)}) == 3
    assert "webhook_url" not in none.options()
