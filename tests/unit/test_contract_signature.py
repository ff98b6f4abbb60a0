"""Only who holds a key can sign, and no change of the job goes unseen."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.contract.codec import dumps, loads
from threadline.contract.signature import parse_keys, sign, verify
from threadline.errors import ConfigurationError, InvalidJob

JOB = {"v": 1, "job_id": "j", "agent": "a", "input": {"q": 1}, "thread_id": "t"}
KEYS = {"new": b"n" * 32, "old": b"o" * 32}


def test_the_first_key_signs_and_all_verify() -> None:
    signed = sign(JOB, KEYS)
    assert signed["sig"]["id"] == "new"
    verify(signed, KEYS)
    verify(sign(JOB, {"old": KEYS["old"]}), KEYS)


def test_without_keys_nothing_is_signed_and_nothing_asked_for() -> None:
    assert sign(JOB, {}) == JOB
    verify(JOB, {})


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_a_signature_holds_after_the_way_through_json(data: dict[str, Any]) -> None:
    verify(loads(dumps(sign({**JOB, "input": data}, KEYS))), KEYS)


@pytest.mark.parametrize(
    "change", [{"input": {"q": 2}}, {"user_id": "root"}, {"v": 2}, {"agent": "b"}, {"on_busy": "rollback"}]
)
def test_a_changed_job_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="the message's signature does not match its content"):
        verify({**sign(JOB, KEYS), **change}, KEYS)


@pytest.mark.parametrize(
    "sig", [None, "x", {}, {"id": "gone", "mac": "00"}, {"mac": "00"}, {"id": None, "mac": None}, ["new"]]
)
def test_an_unknown_key_is_refused(sig: Any) -> None:
    with pytest.raises(InvalidJob, match=r"not signed with a known key \(THREADLINE_ENQUEUE_KEYS\)"):
        verify({**JOB, "sig": sig}, KEYS)


@pytest.mark.parametrize("mac", [None, "", 0, "é", sign(JOB, KEYS)["sig"]["mac"].upper()])
def test_a_wrong_mac_is_refused(mac: Any) -> None:
    with pytest.raises(InvalidJob, match="does not match"):
        verify({**JOB, "sig": {"id": "new", "mac": mac}}, KEYS)


def test_keys_are_read_in_order() -> None:
    text = ", ".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in KEYS.items())
    assert list(parse_keys(text).items()) == list(KEYS.items())
    assert parse_keys("") == {}


@pytest.mark.parametrize(
    "text", ["nocolon", ":bm9uYW1lbm9uYW1lbm9uYW1l", "a:c2hvcnQ=", "a:not base64!", "a:sécret", "a:"]
)
def test_a_key_that_is_none_is_named_by_its_variable_and_never_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="THREADLINE_ENQUEUE_KEYS: each entry is id:base64key") as caught:
        parse_keys(text)
    assert text not in str(caught.value)
