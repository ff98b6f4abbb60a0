"""A job's input is compared with the graph's input schema before anything is written; a refusal names the field.

Only what LangGraph would take as it is gets judged: a field with a reducer, or with messages, is the reducer's to read.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints

from langchain_core.messages import BaseMessage
from langgraph.channels import LastValue
from langgraph.pregel import Pregel
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict, is_typeddict

from threadline.errors import InvalidJob
from threadline_worker.agents.context import complaint

__all__ = ["InputSchema"]


class InputSchema:
    """What a graph's builder says of its input; a graph without a builder (`@entrypoint`) takes anything."""

    def __init__(self, graph: Pregel[Any, Any, Any, Any]) -> None:
        self._graph = graph
        builder = getattr(graph, "builder", None)
        self._schema: Any = getattr(builder, "input_schema", None)
        #: A schema of its own is meant as one; a whole state rarely is given whole.
        self._own = self._schema is not None and self._schema is not getattr(builder, "state_schema", None)

    def check(self, given: Mapping[str, Any], *, new_thread: bool) -> None:
        """Raise InvalidJob that names the field. `new_thread`: there is no state yet that missing fields come from."""
        if self._adapter is None:
            return
        known = [name for name in self._graph.channels if not name.startswith(("__", "branch:"))]
        if known and not given.keys() & set(known):
            raise InvalidJob(f"input has none of the agent's fields: {', '.join(sorted(known))}")
        whole = self._own or (new_thread and not is_typeddict(self._schema))
        if errors := [one for one in self._errors(self._adapter, given) if whole or one["type"] != "missing"]:
            raise InvalidJob(complaint("input", errors))

    def json(self) -> dict[str, Any]:
        """The JSON schema; names alone where pydantic cannot describe the types."""
        try:
            return self._graph.get_input_jsonschema()
        except PydanticUserError:
            pass
        try:
            return self._adapter.json_schema() if self._adapter else {"type": "object"}
        except PydanticUserError:
            names = get_type_hints(self._schema) if self._schema is not None else ()
            return {"type": "object", "properties": {name: {} for name in names}}

    def _errors(self, adapter: TypeAdapter[Any], given: Mapping[str, Any]) -> list[ErrorDetails]:
        judged = {name: value for name, value in given.items() if name not in self._loose}
        try:
            adapter.validate_python(judged)
        except ValidationError as error:
            # Of the whole, a validator has seen only what is judged; and what was left out is not missing.
            return [one for one in error.errors() if one["loc"] and one["loc"][0] not in given.keys() & self._loose]
        except Exception:  # noqa: BLE001 - a validator is anyone's code, and may want what is left out: the graph judges
            return []
        return []

    @cached_property
    def _adapter(self) -> TypeAdapter[Any] | None:
        if not inspect.isclass(self._schema):
            return None
        try:
            if is_typeddict(self._schema):
                return TypeAdapter(_described(self._schema))
            if issubclass(self._schema, BaseModel) or dataclasses.is_dataclass(self._schema):
                return TypeAdapter(self._schema)
        except PydanticUserError:
            return None
        return None

    @cached_property
    def _loose(self) -> frozenset[str]:
        """The fields that are not judged."""
        hints = get_type_hints(self._schema, include_extras=True)
        return frozenset(
            name
            for name, hint in hints.items()
            if not isinstance(self._graph.channels.get(name), LastValue) or _mentions_messages(hint)
        )


def _described(schema: Any) -> Any:
    """The same TypedDict as pydantic takes it before Python 3.12, too, with Any for what it cannot describe."""
    told, hints = get_type_hints(schema, include_extras=True), get_type_hints(schema)
    fields = {}
    for name, hint in hints.items():
        # With annotations that are text, `__required_keys__` does not know of the qualifiers; the hints do.
        qualifier = get_origin(told[name])
        if qualifier not in {Required, NotRequired}:
            qualifier = Required if name in schema.__required_keys__ else NotRequired
        fields[name] = qualifier[_or_any(hint)]
    return TypedDict(schema.__name__, fields)  # type: ignore[operator]  # made of what is known only now


def _or_any(hint: Any) -> Any:
    try:
        TypeAdapter(hint)
    except PydanticUserError:
        return Any
    return hint


def _mentions_messages(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, BaseMessage):
        return True
    return any(_mentions_messages(part) for part in get_args(hint))
