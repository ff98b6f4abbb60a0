"""JSON on the wire: UTF-8, never pickle; what is not JSON is an error that says where."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from threadline.errors import InvalidJob

__all__ = ["MAX_EVENT_BYTES", "MAX_INPUT_BYTES", "canonical", "dumps", "loads"]

#: 1 MiB: an input above it is refused (InvalidJob); contract.md.
MAX_INPUT_BYTES: Final = 1_048_576
#: 1 MiB: an event's data above it is replaced by `{"truncated": true, "bytes": n}`; contract.md.
MAX_EVENT_BYTES: Final = 1_048_576

_encoder = msgspec.json.Encoder()


def dumps(value: Any) -> bytes:
    """Encode plain data (and msgspec structs) as JSON; TypeError for anything else."""
    return _encoder.encode(value)


def loads(data: bytes | str) -> Any:
    """Decode JSON; ValueError (msgspec.DecodeError) for anything else."""
    try:
        return msgspec.json.decode(data)
    except RecursionError as error:  # a thousand brackets must not end a reader
        raise ValueError("nested too deeply") from error


def canonical(value: Any) -> bytes:
    """The bytes that a signature or a request's fingerprint is taken over: keys sorted, no spaces, UTF-8.

    The standard library's encoder is used on purpose: any language's `sort_keys, no spaces` gives the same bytes.
    Raises InvalidJob for values that JSON does not have (NaN, bytes, …) or that are nested too deeply.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError (a lone surrogate) is a ValueError
        raise InvalidJob(f"not expressible as JSON: {error}") from error
    except RecursionError as error:
        raise InvalidJob("not expressible as JSON: it is nested too deeply") from error
