"""L7: which errors pass and which last, and how long a job waits after one."""

from __future__ import annotations

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.errors import GraphRecursionError

from threadline_worker.outcome import FAILURE_LIMIT, Failed, Retriable, backoff, classify, describe


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://x"))
    return httpx.HTTPStatusError("no", request=response.request, response=response)


def test_L7_three_failures_are_the_limit() -> None:
    assert FAILURE_LIMIT == 3


@given(st.integers(min_value=0, max_value=1000))
def test_L7_backoff_doubles_from_two_seconds_to_five_minutes_with_jitter(failures) -> None:
    middle = min(2.0 * 2 ** min(failures, 20), 300)
    assert 0.75 * middle <= backoff(failures) <= 1.25 * middle


def test_L7_jitter_spreads() -> None:
    assert len({backoff(0) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("given_", "least", "most"),
    [(60.0, 60, 60), (0.1, 1.5, 2.5), (-5.0, 1.5, 2.5), (float("inf"), 3600, 3600), (float("nan"), 1.5, 2.5)],
)
def test_L7_retry_after_is_the_least(given_, least, most) -> None:
    assert least <= backoff(0, given_) <= most


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_L7_passing_http_answers_are_retriable(status) -> None:
    assert classify(answered(status)) == Retriable("transient", "HTTPStatusError: no")


def test_L7_retry_after_is_read_from_the_response() -> None:
    assert classify(answered(429, **{"Retry-After": "17"})).retry_after == 17
    assert classify(answered(429, **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})).retry_after is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_L7_lasting_http_answers_fail(status) -> None:
    assert classify(answered(status)) == Failed("error", "HTTPStatusError: no")


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        httpx.ConnectError("x"),
        httpx.ReadTimeout("x"),
        psycopg.OperationalError("x"),
    ],
)
def test_L7_connections_and_timeouts_are_retriable(error) -> None:
    assert isinstance(classify(error), Retriable)


def test_L7_others_fail_with_their_code() -> None:
    assert classify(ValueError("x")) == Failed("error", "ValueError: x")
    assert classify(GraphRecursionError("deep")).code == "recursion_limit"


def test_the_message_is_one_line_names_the_node_and_is_bounded() -> None:
    error = ValueError("two\nlines" + "x" * 5000)
    error.add_note("During task with name 'search' and id '1'")
    text = describe(error)
    assert text.startswith("ValueError: two lines")
    assert text.endswith("(node search)")
    assert len(text) < 2000
