"""A run's context is built by the graph's own schema before the first step; what does not fit is named."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails

from threadline.errors import InvalidJob

__all__ = ["OURS", "complaint", "context_of"]

#: The fields that are filled in where a context schema has them.
OURS: Final = ("user_id", "job_id", "thread_id")


def context_of(schema: Any, given: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> Any:
    """An instance of a dataclass or pydantic schema, a dict for a TypedDict or without a schema; None for nothing.

    `given` is the producer's; the fields OURS that the schema has are taken from `ours` whatever it says. Raises
    InvalidJob that names the field.
    """
    if schema is None:
        return None if given is None else dict(given)
    known = _fields(schema)
    filled: dict[str, Any] = {**(given or {}), **{name: ours[name] for name in OURS if name in known and name in ours}}
    if (unknown := sorted(filled.keys() - known)) and not _takes_any(schema):
        raise InvalidJob(f"context has no field {', '.join(unknown)}: the agent knows {', '.join(sorted(known))}")
    try:
        return _built(schema, filled)
    except ValidationError as error:
        raise InvalidJob(complaint("context", error.errors())) from error
    except TypeError as error:  # a dataclass that pydantic cannot describe
        raise InvalidJob(f"context does not fit: {error}") from error


def complaint(what: str, errors: Sequence[ErrorDetails]) -> str:
    """The first of pydantic's errors with its field, in one sentence; what was given is not repeated."""
    place = ".".join(map(str, (what, *errors[0]["loc"])))
    more = "" if len(errors) == 1 else f" (and {len(errors) - 1} more)"
    return f"{place}: {errors[0]['msg']}{more}"


def _fields(schema: Any) -> set[str]:
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        aliases = {field.alias for field in schema.model_fields.values() if field.alias}
        return {*schema.model_fields, *aliases}
    if dataclasses.is_dataclass(schema):
        return {field.name for field in dataclasses.fields(schema) if field.init}
    return set(get_type_hints(schema))


def _takes_any(schema: Any) -> bool:
    return inspect.isclass(schema) and issubclass(schema, BaseModel) and schema.model_config.get("extra") == "allow"


def _built(schema: Any, filled: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(schema).validate_python(filled)
    except PydanticUserError:  # types that it cannot describe: then as LangGraph itself would
        return schema(**filled) if inspect.isclass(schema) and dataclasses.is_dataclass(schema) else filled
