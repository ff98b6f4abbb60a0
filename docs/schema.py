"""The JSON Schema of an event, made from the code: `python docs/schema.py` writes it, `--check` only looks.

It goes into threadline/contract/schema.json, which every wheel carries. Unknown fields and types are allowed, as the
contract says: adding is free.
"""
# ruff: noqa: INP001, T201 - a script of its own that talks on stdout, not a module of the package

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from threadline.contract.codec import MAX_EVENT_BYTES
from threadline.contract.events import VERSION, EventType
from threadline.contract.job import STREAM_MODES

PATH: Final = Path(__file__).resolve().parent.parent / "producer/threadline/contract/schema.json"

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_OBJECT: Final[Schema] = {"type": "object"}
_MOMENT: Final[Schema] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
_POSITION: Final[Schema] = {"type": "string", "pattern": r"^\d+-\d+$"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _record(**fields: Schema) -> Schema:
    return {"type": "object", "required": list(fields), "properties": fields}


_CLAIMED: Final = {"worker_id": _STRING, "epoch": _WHOLE, "checkpoint_id": _TEXT_OR_NULL}

#: The data of each type.
DATA: Final[dict[str, Schema]] = {
    EventType.QUEUED: _record(agent=_STRING),
    EventType.STARTED: _record(**_CLAIMED),
    EventType.RESUMED: _record(**_CLAIMED, from_worker=_STRING),
    EventType.RELEASED: _record(
        worker_id=_TEXT_OR_NULL, epoch=_WHOLE, code=_TEXT_OR_NULL, message=_TEXT_OR_NULL, run_at=_MOMENT
    ),
    EventType.RETRIED: _record(epoch=_WHOLE),
    EventType.INTERRUPTED: _record(interrupts=_list(_record(id=_STRING, value={}))),
    EventType.SUCCEEDED: _record(result={}),
    EventType.FAILED: _record(code=_STRING, message=_STRING),
    EventType.CANCELLED: _record(code=_STRING),
    EventType.GAP: _record(after=_TEXT_OR_NULL, next=_TEXT_OR_NULL),
    "values": {},
    "updates": {"description": "node → what it changed; `__interrupt__`, `__metadata__` are LangGraph's", **_OBJECT},
    "messages": {
        "type": "array",
        "prefixItems": [_ref("message"), _OBJECT],
        "minItems": 2,
        "maxItems": 2,
        "description": "the pieces of one message share its id and concatenate",
    },
    "tasks": {"anyOf": [_ref("task"), _ref("task_result")]},
    "checkpoints": _ref("checkpoint"),
    "custom": {},
    "debug": {
        **_record(step={"type": "integer"}, timestamp=_STRING, type=_STRING, payload=_OBJECT),
        "oneOf": [
            {"properties": {"type": {"const": "checkpoint"}, "payload": _ref("checkpoint")}},
            {"properties": {"type": {"const": "task"}, "payload": _ref("task")}},
            {"properties": {"type": {"const": "task_result"}, "payload": _ref("task_result")}},
        ],
    },
    "tools": {
        **_record(event=_STRING, tool_call_id=_STRING),
        "description": "tool-started {tool_name, input}, tool-output-delta {delta}, tool-finished {output}, tool-error "
        "{message}",
    },
}

_NAMED: Final = {"id": _STRING, "name": _STRING}
DEFS: Final[dict[str, Schema]] = {
    "truncated": {
        **_record(truncated={"const": True}, bytes=_WHOLE),
        "description": f"instead of data of more than {MAX_EVENT_BYTES} bytes, or when too much waits for Redis",
    },
    "sealed": {
        **_record(sealed={"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,32}:[A-Za-z0-9+/]+={0,2}$"}),
        "description": "instead of any data while THREADLINE_ENCRYPTION_KEYS is set: <key id>:<base64>",
    },
    "message": {
        **_record(type=_STRING, data=_record(content={"type": ["string", "array"]})),
        "description": "LangChain's message_to_dict",
    },
    "task": _record(**_NAMED, input={}, triggers=_list(_STRING)),
    "task_result": _record(**_NAMED, result={}, error={}, interrupts=_list({})),
    "checkpoint": _record(
        config={"type": ["object", "null"]},
        metadata=_OBJECT,
        values={},
        next=_list(_STRING),
        parent_config={"type": ["object", "null"]},
        tasks=_list(_record(**_NAMED)),
    ),
}


def schema() -> Schema:
    """The whole schema, draft 2020-12."""
    if set(DATA) != {*map(str, EventType), *STREAM_MODES}:
        raise ValueError("docs/schema.py describes other types than the code has")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:threadline:event:{VERSION}",
        "title": "An event of a job's log",
        "type": "object",
        "required": ["v", "id", "job_id", "thread_id", "type", "ns", "data", "at"],
        "properties": _fields(),
        "allOf": [
            {
                "if": {"properties": {"type": {"const": str(kind)}}},
                "then": {"properties": {"data": _ref(f"data.{kind}"), "id": _id(str(kind))}},
            }
            for kind in DATA
        ],
        "$defs": {
            **{f"data.{kind}": _or_instead(data) for kind, data in DATA.items()},
            **DEFS,
        },
    }


def _fields() -> Schema:
    return {
        "v": {"const": VERSION},
        "id": {"description": "<epoch>-<n>, the position; null in `gap` only"},
        "job_id": _STRING,
        "thread_id": _STRING,
        "type": _STRING,
        "ns": _list(_STRING),
        "data": {},
        "at": _MOMENT,
        "step": {
            "type": "integer",
            "description": "the super-step in its namespace; in `resumed` the last durable one",
        },
        "agent": {"type": "string", "description": "the main agent's name, or the subagent's"},
        "node": {"type": "string", "description": "the graph's node"},
        "task": {"type": "string", "description": "LangGraph's id of this run of the node; a rerun has the same"},
        "rerun": {
            "const": True,
            "description": "the log had an event of the same kind of the same task or step before",
        },
        "prev": {"type": ["string", "null"], "description": "on <epoch>-1: the log's last id before it"},
    }


def _id(kind: str) -> Schema:
    return {"type": "null"} if kind == EventType.GAP else _POSITION


def _or_instead(data: Schema) -> Schema:
    return {"anyOf": [data, _ref("truncated"), _ref("sealed")]} if data else {}


def text() -> str:
    """The file's content."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the file if it differs, or with `--check` say so; the exit code."""
    differs = not PATH.exists() or PATH.read_text(encoding="utf-8") != text()
    if differs and "--check" in arguments:
        print(f"{PATH.name} differs from the code: run `python docs/schema.py`")
        return 1
    if differs:
        PATH.write_text(text(), encoding="utf-8")
        print(f"wrote {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
