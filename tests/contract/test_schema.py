"""The JSON Schema is made from the code, is true of what was ever written, and refuses what is no event."""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from support.schema import event_errors, validator
from threadline.contract.events import Event, EventType, decode_event, encode_event
from threadline.contract.job import STREAM_MODES

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_schema", ROOT / "docs" / "schema.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def events(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return found


def test_the_file_is_what_the_code_makes() -> None:
    """Else: python docs/schema.py."""
    assert (files("threadline.contract") / "schema.json").read_text(encoding="utf-8") == generator().text()


def test_it_knows_the_fields_of_an_event_and_all_types() -> None:
    schema = validator().schema
    assert isinstance(schema, dict)
    assert set(schema["properties"]) == {field.name for field in msgspec.structs.fields(Event)}
    kinds = {rule["if"]["properties"]["type"]["const"] for rule in schema["allOf"]}
    assert kinds == {*map(str, EventType), *STREAM_MODES}


@pytest.mark.parametrize("event", events("stream_modes.json"), ids=lambda event: f"{event['type']} {event['id']}")
def test_an_old_workers_stream_is_read_and_written_as_it_was(event: dict[str, Any]) -> None:
    line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    assert encode_event(decode_event(line)) == line
    assert event_errors(event) == []


def test_the_golden_streams_show_every_mode() -> None:
    assert {event["type"] for event in events("stream_modes.json")} == set(STREAM_MODES)


USUAL: dict[str, Any] = {
    "v": 1,
    "id": "1-2",
    "job_id": "j",
    "thread_id": "t",
    "type": "updates",
    "ns": [],
    "data": {},
    "at": "2026-11-20T08:00:00.123Z",
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"type": "thoughts", "data": 7},
        {"later": True},
        {"type": "gap", "id": None, "data": {"after": None, "next": "1-1"}},
        {"type": "values", "data": {"truncated": True, "bytes": 2_000_000}},
        {"type": "messages", "data": {"truncated": True, "bytes": 2_000_000}},
        {"type": "custom", "data": None},
        {"rerun": True, "agent": "a", "node": "n", "task": "t", "step": -1},
    ],
)
def test_what_is_an_event(change: dict[str, Any]) -> None:
    assert event_errors({**USUAL, **change}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"id": None},
        {"id": "1"},
        {"ns": "tools"},
        {"at": "2026-11-20"},
        {"rerun": False},
        {"data": []},
        {"type": "messages", "data": [{"type": "ai", "data": {"content": ""}}]},
        {"type": "messages", "data": [{"content": ""}, {}]},
        {"type": "tasks", "data": {"id": "x"}},
        {"type": "succeeded", "data": {}},
        {"type": "debug", "data": {"step": 1, "timestamp": "", "type": "task", "payload": {}}},
        {"type": "gap", "data": {"after": None, "next": None}},
    ],
)
def test_what_is_none(change: dict[str, Any]) -> None:
    assert event_errors({**USUAL, **change})
