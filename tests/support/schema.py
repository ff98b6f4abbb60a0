"""Holds published events against the contract's JSON Schema."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from jsonschema import Draft202012Validator

from threadline.contract.events import decode_event

__all__ = ["event_errors", "published", "validator"]


@cache
def validator() -> Draft202012Validator:
    text = (files("threadline.contract") / "schema.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def event_errors(event: Any) -> list[str]:
    """What is wrong with an event, one line each."""
    shown = f"{event.get('type')} {event.get('id')}" if isinstance(event, dict) else repr(event)[:80]
    return [f"{shown} at {error.json_path}: {error.message[:300]}" for error in validator().iter_errors(event)]


def published(redis_url: str) -> list[Any]:
    """Every event in every log of this Redis; entries that are none are others' (docs/protocol.md)."""
    found = []
    with redis.Redis.from_url(redis_url) as connection:
        for key in connection.scan_iter("*:events:{*}", count=1_000):
            for entry_id, fields in connection.xrange(key):
                with suppress(KeyError, ValueError):
                    event = json.loads(fields[b"e"])
                    if decode_event(fields[b"e"]).id == entry_id.decode():
                        found.append(event)
    return found
