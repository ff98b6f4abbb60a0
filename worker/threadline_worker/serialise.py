"""Turns whatever a graph streams into JSON that programs can use; what JSON lacks becomes {"repr": …}.

Nothing is dropped and nothing raises: objects of others may do anything while they are looked at.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import msgspec
from langchain_core.messages import BaseMessage, message_to_dict
from langgraph.types import Interrupt
from pydantic import BaseModel

from threadline.contract.codec import MAX_EVENT_BYTES

__all__ = ["jsonable", "packed", "storable", "truncated"]

_MAX_DEPTH: Final = 60
_MAX_REPR: Final = 2_000
#: Python refuses to write out numbers of more than 4,300 digits.
_MAX_BITS: Final = 14_000
#: Bytes that any value takes in JSON at least, with its comma.
_LEAST: Final = 2

_LONGEST_WALK: Final = MAX_EVENT_BYTES + _LEAST

_encoder = msgspec.json.Encoder()


def jsonable(value: Any) -> Any:
    """Plain JSON data of a value. Messages take LangChain's `{"type", "data"}` form, interrupts `{"id", "value"}`."""
    return _Walk(math.inf).plain(value)


def packed(value: Any) -> bytes:
    """A value as an event's data: JSON of at most 1 MiB, or `{"truncated": true, "bytes": n}`."""
    try:
        # What is over 1 MiB in any case need not be walked to its end, which may hold up the event loop.
        data = _encoder.encode(_Walk(_LONGEST_WALK).plain(value))
    except _TooLargeError:
        return truncated(_LONGEST_WALK)
    return data if len(data) <= MAX_EVENT_BYTES else truncated(len(data))


def truncated(size: int) -> bytes:
    """What stands for data of so many bytes (at least)."""
    return _encoder.encode({"truncated": True, "bytes": size})


def storable(text: str) -> str:
    """Text that Postgres can store: without NUL and lone surrogates, which others' exceptions and messages may hold."""
    return _utf8(text).replace("\0", "\N{REPLACEMENT CHARACTER}")


class _TooLargeError(Exception):
    """There is more than an event can hold."""


class _Walk:
    """One walk through a value, whose JSON may be `left` bytes at least."""

    def __init__(self, left: float) -> None:
        self._left = left
        #: What the walk is inside of: met again, it is a cycle.
        self._inside: set[int] = set()

    def plain(self, value: Any) -> Any:
        if type(value) is str and value.isascii():  # most values
            self._spend(len(value) + _LEAST)
            return value
        self._spend(_LEAST)
        try:
            scalar = _scalar(value)
        except Exception:  # noqa: BLE001 - a subclass of datetime or PurePath is foreign code, too
            return _repr(value)
        if scalar is not _NONE_OF_THESE:
            return scalar
        if id(value) in self._inside or len(self._inside) >= _MAX_DEPTH:
            return _repr(value)
        self._inside.add(id(value))
        try:
            return self._container(value)
        except (_TooLargeError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - a foreign object's attributes may do anything; progress must go on
            return _repr(value)
        finally:
            self._inside.discard(id(value))

    def _spend(self, least: int) -> None:
        self._left -= least
        if self._left < 0:
            raise _TooLargeError

    def _list(self, items: list[Any]) -> list[Any]:
        if items and _all_plain_numbers(items):  # a vector
            self._spend(_LEAST * len(items))
            return items
        return [self.plain(item) for item in items]

    def _container(self, value: Any) -> Any:  # noqa: C901, PLR0911 - one flat table of types reads best
        match value:
            case BaseMessage():
                return self._message(value)
            case Interrupt():
                return {"id": value.id, "value": self.plain(value.value)}
            case Mapping():
                return self._mapping(dict(value).items())
            case list() | tuple():
                return self._list(list(value))
            case set() | frozenset():
                return [self.plain(item) for item in sorted(value, key=repr)]
            case Enum():
                return self.plain(value.value)
            case BaseModel():
                return self._mapping({**_fields_of_model(value), **(value.model_extra or {})}.items())
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                return self._mapping(
                    [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
                )
            case _:
                return _repr(value)

    def _message(self, message: BaseMessage) -> Any:
        try:
            return self.plain(message_to_dict(message))
        except _TooLargeError:
            raise
        except Exception:  # noqa: BLE001 - pydantic refuses cycles, and what a tool put into `artifact` may do anything
            return {"type": message.type, "data": self._mapping(_fields_of_model(message).items())}

    def _mapping(self, items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in items:
            name = _key(key)
            while name in out:  # 1 and "1" are two keys
                name = f"{name} ({type(key).__name__})"
            out[name] = self.plain(item)
        return out


_NONE_OF_THESE: Final = object()


def _all_plain_numbers(items: list[Any]) -> bool:
    kinds = set(map(type, items))
    if kinds == {float}:
        return all(map(math.isfinite, items))
    return kinds == {int} and min(items) >= -(2**63) and max(items) < 2**64


def _scalar(value: Any) -> Any:
    exact = _SCALARS.get(type(value))
    if exact is not None:
        return exact(value)
    for kind in type(value).__mro__:
        if (form := _SCALARS.get(kind)) is not None:
            return form(value) if not isinstance(value, Enum) else _NONE_OF_THESE
    return _NONE_OF_THESE


def _integer(value: int) -> Any:
    # Readers in other languages have 53 or 64 bits.
    if -(2**63) <= value < 2**64:
        return int(value)
    return {"repr": (str(value) if value.bit_length() < _MAX_BITS else hex(value))[:_MAX_REPR]}


def _base64(value: Any) -> dict[str, str]:
    return {"base64": base64.b64encode(bytes(value)).decode()}


def _utf8(text: str) -> str:
    # Through the class: a subclass of str may do anything.
    return str.__str__(text) if str.isascii(text) else str.encode(text, "utf-8", "replace").decode()


_SCALARS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): lambda _value: None,
    bool: bool,
    str: _utf8,
    int: _integer,
    float: lambda value: float(value) if math.isfinite(value) else {"repr": repr(float(value))},
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: timedelta.total_seconds,
    bytes: _base64,
    bytearray: _base64,
    memoryview: _base64,
    UUID: str,
    PurePath: lambda value: _utf8(str(value)),
}


def _fields_of_model(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name, None) for name in type(model).model_fields}


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _utf8(key.value if isinstance(key, Enum) else key)
    return str(key) if isinstance(key, (int, float)) else str(_repr(key)["repr"])


def _repr(value: Any) -> dict[str, str]:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a foreign object's __repr__ may do anything; progress must go on
        text = f"<{type(value).__name__}: repr failed with {type(error).__name__}>"
    return {"repr": str.encode(text[:_MAX_REPR], "utf-8", "replace").decode()}
