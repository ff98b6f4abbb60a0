"""What old producers and workers wrote is read, and written again byte by byte; what newer ones add does no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from threadline.contract import arq_message
from threadline.contract.codec import dumps, loads
from threadline.contract.events import EventType, decode_event, encode_event
from threadline.contract.job import STREAM_MODES, JobRequest, decode_request
from threadline.contract.keys import Keys
from threadline.contract.signature import sign, verify
from threadline.contract.states import Code, OnBusy, State
from threadline.errors import InvalidJob

GOLDEN = Path(__file__).parent / "golden"
KEYS = {"k1": b"an enqueue key of 32 bytes !!!!!"}


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes().rstrip(b"\n")


def golden_lines(name: str) -> list[bytes]:
    """The elements of a golden array, as they stand: one a line."""
    return [line.rstrip(b",") for line in golden(name).splitlines() if line not in {b"[", b"]"}]


def test_an_old_producers_job_is_read_and_written_as_it_was() -> None:
    request = decode_request(loads(golden("job.json")))
    old, written = loads(golden("job.json")), loads(dumps(request))
    assert {name: written.pop(name) for name in old} == old
    assert set(written.values()) == {None}  # fields that later versions added
    assert (request.user_id, request.on_busy, request.timeout) == ("42", OnBusy.INTERRUPT, 3600.0)
    assert request.run_at is not None
    assert request.run_at.isoformat() == "2026-11-20T08:00:00+01:00"


def test_a_job_with_the_least_fields_gets_the_contracts_defaults() -> None:
    assert decode_request(loads(golden("job_least.json"))) == JobRequest(
        job_id="j1",
        agent="research",
        input="What?",
        thread_id="t1",
        user_id="default",
        on_busy=OnBusy.ENQUEUE,
        stream_modes=["updates"],
    )


def test_fields_that_a_later_producer_adds_to_a_job_are_tolerated() -> None:
    later = decode_request(loads(golden("job_of_a_later_version_1.json")))
    assert later == decode_request(loads(golden("job_least.json")))


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("job.json", "f6f93ededee4dea51210245f4e9ed69460bdf991f48f811bc065ef08f8ebfeda"),
        ("job_least.json", "3ec2c4757af60347aec059151da5446f650f1a8152f59ccfce1e93b075f3b5e5"),
        ("job_of_a_later_version_1.json", "3ec2c4757af60347aec059151da5446f650f1a8152f59ccfce1e93b075f3b5e5"),
    ],
)
def test_fingerprints_in_old_ledgers_stay_comparable(name: str, fingerprint: str) -> None:
    assert decode_request(loads(golden(name))).fingerprint() == fingerprint


def test_the_signature_is_what_openssl_makes() -> None:
    # openssl dgst -sha256 -hmac 'an enqueue key of 32 bytes !!!!!', over the sorted JSON without spaces
    signed = loads(golden("job_signed.json"))
    verify(signed, KEYS)
    assert dumps(sign(loads(golden("job.json")), KEYS)) == golden("job_signed.json")


def test_a_later_producers_signature_covers_the_fields_that_this_code_does_not_know() -> None:
    later = sign(loads(golden("job_of_a_later_version_1.json")), KEYS)
    verify(later, KEYS)
    with pytest.raises(InvalidJob, match="does not match"):
        verify({**later, "priority": 8}, KEYS)


@pytest.mark.parametrize(
    "line", golden_lines("events.json"), ids=lambda line: f"{loads(line)['type']} {loads(line)['id']}"
)
def test_an_old_workers_event_is_read_and_written_as_it_was(line: bytes) -> None:
    assert encode_event(decode_event(line)) == line


def test_the_golden_events_show_every_type_of_the_contract() -> None:
    shown = {loads(line)["type"] for line in golden_lines("events.json")}
    assert {str(kind) for kind in EventType} <= shown


def test_an_event_of_an_unknown_type_passes_on() -> None:
    event = decode_event(golden_lines("events.json")[-1])
    assert (event.type, event.terminal, str(event.position)) == ("thoughts", False, "1-8")


def test_events_of_others_are_read_whatever_they_add_or_leave_out() -> None:
    least, most, resumed = (decode_event(line) for line in golden_lines("events_of_others.json"))
    assert (least.ns, least.data, least.at, least.prev, least.step, least.v) == ([], None, "", None, None, 1)
    assert (most.ns, most.data) == (["a", "b"], None)
    assert (resumed.step, resumed.data["region"]) == (0, "eu")


@pytest.mark.parametrize("name", ["arq_message.json", "arq_message_with_job.json"])
def test_an_old_producers_message_is_read_and_written_as_it_was(name: str) -> None:
    args = arq_message.decode(golden(name))
    assert args[0] == loads(golden(name))["a"][0]
    assert arq_message.Message("any", args, 1_795_161_600_000).body == golden(name)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\x80\x04}.",
        b"[]",
        b"null",
        b"{}",
        b'{"f":"run_job"}',
        b'{"f":"other","a":[]}',
        b'{"f":"run_job","a":{}}',
    ],
)
def test_what_is_no_message_of_ours_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's words, or ours
        arq_message.decode(body)


def test_the_names_in_redis_are_the_contracts() -> None:
    keys = Keys()
    assert (keys.queue, keys.control, keys.wake) == ("threadline:queue", "threadline:control", "threadline:wake")
    assert keys.events("0b5c") == "threadline:events:{0b5c}"
    assert keys.thread("user-42-session-7") == "threadline:thread:{user-42-session-7}"
    assert keys.schema == "threadline"
    staging = Keys("staging")
    assert (staging.queue, staging.events("j"), staging.schema) == ("staging:queue", "staging:events:{j}", "staging")


def test_the_words_of_the_contract_are_pinned() -> None:
    assert [str(state) for state in State] == ["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
    assert [str(word) for word in OnBusy] == ["enqueue", "reject", "interrupt", "rollback"]
    assert {"error", "timeout", "poisoned", "expired", "invalid_input", "superseded", "requested", "replaced"} <= {
        *Code
    }
    assert {"values", "updates", "messages", "custom"} <= {*STREAM_MODES}


def test_states_and_types_are_strings() -> None:
    assert json.dumps({"state": State.RUNNING, "type": EventType.GAP}) == '{"state": "running", "type": "gap"}'
    words: list[Any] = [State.FAILED, EventType.FAILED]
    assert all(word == "failed" and f"{word}" == "failed" for word in words)
