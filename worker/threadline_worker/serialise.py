"""Turns whatever a graph streams into JSON that programs can use; what JSON lacks becomes {"repr": …}."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage, message_to_dict
from langgraph.types import Interrupt
from pydantic import BaseModel

__all__ = ["jsonable", "storable"]

_MAX_DEPTH = 60
_MAX_REPR = 2_000


def jsonable(value: Any, depth: int = 0) -> Any:  # noqa: C901, PLR0911, PLR0912 - one flat table of types reads best
    """Plain JSON data of a value. Messages take LangChain's `{"type", "data"}` form, interrupts `{"id", "value"}`."""
    if depth > _MAX_DEPTH:
        return _repr(value)
    match value:
        case None | bool():
            return value
        case Enum():
            return jsonable(value.value, depth + 1)
        case str():
            return _utf8(value)
        case int():
            # Readers in other languages have 53 or 64 bits.
            return int(value) if -(2**63) <= value < 2**64 else {"repr": str(value)[:_MAX_REPR]}
        case float():
            return float(value) if math.isfinite(value) else {"repr": repr(value)}
        case BaseMessage():
            return jsonable(message_to_dict(value), depth + 1)
        case Interrupt():
            return {"id": value.id, "value": jsonable(value.value, depth + 1)}
        case Mapping():
            return {_key(key): jsonable(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item, depth + 1) for item in value]
        case set() | frozenset():
            return [jsonable(item, depth + 1) for item in sorted(value, key=repr)]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return {"base64": base64.b64encode(bytes(value)).decode()}
        case UUID() | PurePath():
            return str(value)
        case BaseModel():
            return jsonable(_fields_of_model(value), depth + 1)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
            return jsonable(fields, depth + 1)
        case _:
            return _repr(value)


def _fields_of_model(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name, None) for name in type(model).model_fields}


def storable(text: str) -> str:
    """Text that Postgres can store: without NUL and lone surrogates, which others' exceptions and messages may hold."""
    return _utf8(text).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _utf8(key)
    return str(key) if isinstance(key, (int, float)) else _repr(key)["repr"]


def _repr(value: Any) -> dict[str, str]:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a foreign object's __repr__ may do anything; progress must go on
        text = f"<{type(value).__name__}: repr failed with {type(error).__name__}>"
    return {"repr": text[:_MAX_REPR].encode("utf-8", "replace").decode()}
