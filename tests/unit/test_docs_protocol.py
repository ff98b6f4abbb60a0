"""docs/protocol.md is the contract: its examples go through threadline.contract, its tables are compared with it."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from support.markdown import ROOT, block, rows
from threadline.contract import arq_message
from threadline.contract.codec import MAX_EVENT_BYTES, MAX_INPUT_BYTES, canonical
from threadline.contract.events import TERMINAL, EventId, EventType, decode_event, encode_event
from threadline.contract.job import STREAM_MODES, JobRequest, decode_request
from threadline.contract.keys import Keys
from threadline.contract.signature import parse_keys, sign, verify
from threadline.contract.states import Code, OnBusy
from threadline.errors import InvalidJob
from threadline.log.position import Position

_PROTOCOL = "docs/protocol.md"
_TEXT = (ROOT / _PROTOCOL).read_text(encoding="utf-8")


def test_names_in_redis_are_those_of_the_code() -> None:
    keys = Keys()
    told = {row[1].strip("`") for row in rows(_PROTOCOL, "what")}
    made = {keys.queue, keys.wake, keys.control, keys.events("JOB"), keys.thread("THREAD")}
    made |= {keys.queue_of("QUEUE"), keys.wake_of("QUEUE")}
    assert told == {*made, arq_message.JOB_KEY_PREFIX + "MESSAGE"}


def test_the_message_is_ours() -> None:
    text = block(_PROTOCOL, "message")
    [job_id] = arq_message.decode(text.encode())
    written = arq_message.Message("any", [job_id], json.loads(text)["et"]).body
    assert json.loads(written) == json.loads(text)


def test_the_job_decodes_and_shows_every_field() -> None:
    told = json.loads(block(_PROTOCOL, "job"))
    request = decode_request(told)
    assert msgspec.to_builtins(request) == told
    assert set(told) == {field.name for field in msgspec.structs.fields(JobRequest)}


def test_what_is_said_to_be_required_is_required() -> None:
    required = {field.name for field in msgspec.structs.fields(JobRequest) if field.required}
    sentence = re.search(r"^(.+) are required;", _TEXT, re.MULTILINE)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == required
    least = msgspec.to_builtins(decode_request({"job_id": "j", "agent": "a", "input": "i", "thread_id": "t"}))
    optional = [row for row in rows(_PROTOCOL, "field") if row[2] != "–"]
    told = {name: row[2].strip("`") for row in optional for name in re.findall(r"`(\w+)`", row[0])}
    assert told == {name: _shown(least[name]) for name in least if name not in {*required, "v"}}


def test_the_signature_is_right_and_binds() -> None:
    job = json.loads(block(_PROTOCOL, "unsigned"))
    keys = parse_keys(re.findall(r"THREADLINE_ENQUEUE_KEYS=(\S+?)`", _TEXT)[0])
    assert keys == {"k1": b"0123456789abcdef0123456789abcdef"}
    assert canonical(job).decode() == block(_PROTOCOL, "canonical").strip()
    signature = json.loads(block(_PROTOCOL, "signature"))
    assert sign(job, keys)["sig"] == signature
    verify({**job, "sig": signature}, keys)
    with pytest.raises(InvalidJob):
        verify({**job, "user_id": "43", "sig": signature}, keys)


def test_the_event_decodes_and_comes_out_the_same() -> None:
    text = block(_PROTOCOL, "event").strip()
    assert encode_event(decode_event(text)).decode() == text


def test_the_log_has_no_hole() -> None:
    position, kinds = Position("j"), []
    for line in block(_PROTOCOL, "log").splitlines():
        event = decode_event(line)
        assert position.follows(event), event.id
        position.advance(event)
        kinds.append(event.type)
    assert kinds[-1] in TERMINAL
    assert "resumed" in kinds


def test_a_hole_in_the_log_would_be_seen() -> None:
    lines = block(_PROTOCOL, "log").splitlines()
    for missing in range(1, len(lines) - 1):
        position, holes = Position("j"), []
        for line in lines[:missing] + lines[missing + 1 :]:
            event = decode_event(line)
            if not position.follows(event):
                holes.append(event.id)
            position.advance(event)
        assert holes == [decode_event(lines[missing + 1]).id]


def test_the_lifecycle_types_are_those_of_the_code() -> None:
    assert {row[0].strip("`") for row in rows(_PROTOCOL, "type")} == {str(kind) for kind in EventType}
    sentence = re.search(r"^(.+) end a job\.", _TEXT, re.MULTILINE)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == {str(state) for state in TERMINAL}


def test_words_and_limits_are_those_of_the_code() -> None:
    assert f"{MAX_INPUT_BYTES:,} bytes" in _TEXT
    assert MAX_EVENT_BYTES == 1024 * 1024
    assert f"{arq_message.CARRIED_TTL_MS:,} ms" in _TEXT
    assert all(f"`{mode}`" in _TEXT for mode in STREAM_MODES)
    assert all(f"`{word}`" in _TEXT for word in OnBusy)
    released = next(row for row in rows(_PROTOCOL, "type") if row[0] == "`released`")
    known = {str(code) for code in Code}
    assert set(re.findall(r"`(\w+)`", released[2])) <= known


def test_the_order_of_ids_is_as_told() -> None:
    told = re.search(r"`(\S+)` < `(\S+)` < `(\S+)`", _TEXT)
    assert told
    assert sorted(told.groups(), key=EventId.parse) == list(told.groups())


def _shown(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)
