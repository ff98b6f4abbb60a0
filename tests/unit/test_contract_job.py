"""A job that breaks a rule is refused, whoever made it, with a sentence that names the rule."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.contract.codec import MAX_INPUT_BYTES, canonical, dumps, loads
from threadline.contract.job import STREAM_MODES, JobRequest, check_id, decode_request, new_id, seconds
from threadline.contract.states import OnBusy
from threadline.errors import InvalidJob

USUAL: dict[str, Any] = {"job_id": "j1", "agent": "research", "input": "What?", "thread_id": "t1"}
BAD_ID = "use 1-200 of letters, digits and . _ : @ -"


class Nowhere(tzinfo):
    """A time zone that knows no offset: as good as none."""

    def utcoffset(self, _moment: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, _moment: datetime | None, /) -> str | None:
        return None

    def dst(self, _moment: datetime | None, /) -> timedelta | None:
        return None


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("agent", "", "agent '': use 1-100"),
        ("agent", "no spaces", "agent 'no spaces': use 1-100"),
        ("agent", "research\n", "use 1-100"),
        ("agent", "a" * 101, "use 1-100"),
        ("agent", None, "agent None: use 1-100"),
        ("job_id", "", f"job id '': {BAD_ID}"),
        ("job_id", "a/b", f"job id 'a/b': {BAD_ID}"),
        ("thread_id", "", f"thread id '': {BAD_ID}"),
        ("thread_id", "a b", BAD_ID),
        ("thread_id", "a{b}", BAD_ID),
        ("thread_id", "ü", BAD_ID),
        ("thread_id", "a\n", BAD_ID),
        ("thread_id", "\0", BAD_ID),
        ("thread_id", "a" * 201, BAD_ID),
        ("thread_id", 7, f"thread id 7: {BAD_ID}"),
        ("user_id", "", "user id: use a string of 1-500 characters without NUL"),
        ("user_id", "a\0b", "user id: use a string"),
        ("user_id", "\ud800", "user id: use a string"),
        ("user_id", "a" * 501, "user id: use a string"),
        ("user_id", None, "user id: use a string"),
        ("input", None, "input is a NoneType: give a str"),
        ("input", ["x"], "input is a list: give a str"),
        ("input", b"x", "input is a bytes: give a str"),
        ("input", " \n\t", "input is empty"),
        ("input", {"x": math.nan}, "input: not expressible as JSON"),
        ("input", {"x": math.inf}, "input: not expressible as JSON"),
        ("input", {"x": b"y"}, "input: not expressible as JSON"),
        ("input", {"x": {1, 2}}, "input: not expressible as JSON"),
        ("input", {"x": "\ud800"}, "input: not expressible as JSON"),
        ("input", {1: 1, "1": 2}, "input: not expressible as JSON"),
        ("input", {None: 1}, "input: Only dicts with str-like or number-like keys"),
        ("input", deep(100_000), "input: not expressible as JSON: it is nested too deeply"),
        ("input", "x" * (MAX_INPUT_BYTES - 1), r"input is 1,048,577 bytes as JSON; at most 1,048,576 \(1 MiB\)"),
        ("input", {"x": "é" * (MAX_INPUT_BYTES // 2)}, "1 MiB"),
        ("metadata", "x", "metadata is a str: give a dict"),
        ("metadata", {"x": object()}, "metadata: not expressible as JSON"),
        ("metadata", {"x": "y" * 65_536}, "metadata is over 64 KiB"),
        ("stream_modes", [], "stream mode none: use any of values, updates"),
        ("stream_modes", ["updates", "token"], "stream mode 'token': use any of values, updates"),
        ("stream_modes", "updates", "stream_modes='updates': give a list of str"),
        ("interrupt_before", "node", "interrupt_before='node': give a list of str"),
        ("interrupt_after", [1], r"interrupt_after=\[1\]: give a list of str"),
        ("idempotency_key", "", "idempotency key: use a string of 1-500 characters without NUL"),
        ("idempotency_key", "a\0", "idempotency key: use"),
        ("idempotency_key", "a" * 501, "idempotency key: use"),
        ("idempotency_key", 5, "idempotency key: use"),
        ("checkpoint_id", "a b", f"checkpoint id 'a b': {BAD_ID}"),
        ("run_at", datetime(2026, 11, 20), "run_at=2026-11-20T00:00:00 has no time zone"),  # noqa: DTZ001 - the case
        ("run_at", datetime(2026, 11, 20, tzinfo=Nowhere()), "has no time zone"),
        ("run_at", "2026-11-20", "run_at='2026-11-20': give a datetime"),
        ("run_at", datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-5))), "within the next 10 years"),
        ("expires", 0, "expires=0: give seconds"),
        ("expires", -1.5, "expires=-1.5: give seconds"),
        ("expires", True, "expires=True: give seconds"),
        ("expires", "5", "expires='5': give seconds"),
        ("timeout", math.nan, "timeout=nan: give seconds"),
        ("timeout", math.inf, "timeout=inf: give seconds"),
        ("timeout", 400 * 86_400, "at most a year"),
        ("v", 2, "the job is of version 2, this code reads version 1"),
    ],
)
def test_a_broken_rule_is_named(option: str, value: Any, rule: str) -> None:
    with pytest.raises(InvalidJob, match=rule) as caught:
        JobRequest(**{**USUAL, option: value}).check()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("agent", "a" * 100),
        ("thread_id", "user-42:session.7_x@y"),
        ("thread_id", "a" * 200),
        ("user_id", "ü@example.com / 7"),
        ("input", "x" * (MAX_INPUT_BYTES - 2)),
        ("input", {}),
        ("input", {"text": "\0", "big": 2**70, "list": (1, 2)}),
        ("stream_modes", list(STREAM_MODES)),
        ("interrupt_before", ["*"]),
        ("run_at", datetime(2026, 11, 20, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
        ("expires", 0.001),
        ("timeout", 366 * 86_400),
    ],
)
def test_what_the_rules_allow_passes(option: str, value: Any) -> None:
    asked = JobRequest(**{**USUAL, option: value})
    assert asked.check() is asked


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"agent": 1}, "the message's job is not well-formed"),
        ({"input": 1}, "input is a int"),
        ({"on_busy": "wait"}, "not well-formed: Invalid enum value 'wait'"),
        ({"run_at": "tomorrow"}, "not well-formed"),
        ({"run_at": "2026-11-20T08:00:00"}, "no time zone"),
        ({"metadata": None}, "not well-formed"),
        ({"stream_modes": "updates"}, "not well-formed"),
        ({"thread_id": ""}, "thread id ''"),
        ({"v": 2}, "version 2"),
    ],
)
def test_a_malformed_job_in_a_message_is_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidJob, match=rule):
        decode_request({**USUAL, **change})


@pytest.mark.parametrize("missing", ["job_id", "agent", "input", "thread_id"])
def test_a_job_in_a_message_lacks_nothing_it_needs(missing: str) -> None:
    with pytest.raises(InvalidJob, match=f"missing required field `{missing}`"):
        decode_request({name: value for name, value in USUAL.items() if name != missing})


def test_durations_are_seconds_or_timedelta() -> None:
    assert seconds("timeout", None) is None
    assert seconds("timeout", timedelta(minutes=2)) == 120.0
    assert seconds("timeout", 3) == 3.0
    with pytest.raises(InvalidJob, match="timeout="):
        seconds("timeout", timedelta(0))


def test_new_ids_are_ids_and_differ() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(check_id("job id", made) == made and len(made) == 32 for made in ids)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ids = st.from_regex(r"[A-Za-z0-9._:@-]{1,200}", fullmatch=True)
requests = st.builds(
    JobRequest,
    job_id=ids,
    agent=st.from_regex(r"[A-Za-z0-9._-]{1,100}", fullmatch=True),
    input=st.dictionaries(st.text(), json_values, max_size=4) | st.text().filter(str.strip),
    thread_id=ids,
    user_id=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=500),
    on_busy=st.sampled_from(OnBusy),
    idempotency_key=st.none() | ids,
    run_at=st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - naive bounds
    expires=st.none() | st.floats(0.001, 1e6),
    timeout=st.none() | st.floats(0.001, 1e6),
    metadata=st.dictionaries(st.text(), json_values, max_size=3),
    stream_modes=st.lists(st.sampled_from(STREAM_MODES), min_size=1),
    interrupt_before=st.lists(st.text()),
)


@given(requests)
def test_a_job_comes_out_of_its_message_as_it_went_in(asked: JobRequest) -> None:
    assert decode_request(loads(dumps(asked.check()))) == asked


@given(requests)
def test_the_fingerprint_survives_the_message_and_ignores_the_job_id(asked: JobRequest) -> None:
    again = decode_request({**loads(dumps(asked)), "job_id": "another"})
    assert again.fingerprint() == asked.fingerprint()


def test_the_fingerprint_tells_requests_apart() -> None:
    changes: list[dict[str, Any]] = [
        {"agent": "other"},
        {"input": "Why?"},
        {"thread_id": "t2"},
        {"user_id": "u"},
        {"on_busy": OnBusy.REJECT},
        {"metadata": {"a": 1}},
        {"timeout": 5.0},
        {"stream_modes": ["messages"]},
        {"run_at": datetime(2026, 11, 20, tzinfo=UTC)},
        {"checkpoint_id": "c"},
    ]
    prints = {JobRequest(**{**USUAL, **change}).fingerprint() for change in [{}, *changes]}
    assert len(prints) == len(changes) + 1


def test_a_made_up_thread_is_no_part_of_the_request() -> None:
    one, other = JobRequest(**USUAL), JobRequest(**{**USUAL, "thread_id": "made-up"})
    assert one.fingerprint(made_up_thread=True) == other.fingerprint(made_up_thread=True)
    assert one.fingerprint() != one.fingerprint(made_up_thread=True)


def test_the_fingerprint_is_not_changed_by_options_that_a_later_version_adds() -> None:
    class Later(JobRequest, frozen=True, kw_only=True):
        priority: int = 0

    assert Later(**USUAL).fingerprint() == JobRequest(**USUAL).fingerprint()


@given(json_values)
def test_canonical_json_is_one_form_of_one_value(value: Any) -> None:
    form = canonical(value)
    assert canonical(loads(form)) == form
    assert canonical(loads(dumps(value))) == form  # whatever encoder sent it


def test_canonical_json_is_what_other_languages_make() -> None:
    assert canonical({"b": [1, 2.5, None, True], "a": "ü\n", "ä": {}}) == (
        '{"a":"ü\\n","b":[1,2.5,null,true],"ä":{}}'.encode()
    )


def test_sent_json_has_keys_of_text_only() -> None:
    asked = JobRequest(**{**USUAL, "input": {2: "a", 10: "b"}}).check()
    assert asked.as_json()["input"] == {"2": "a", "10": "b"}
    assert msgspec.convert(asked.as_json(), JobRequest).fingerprint() == asked.fingerprint()
