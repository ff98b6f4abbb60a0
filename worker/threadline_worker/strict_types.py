"""State survives as it was: a value whose type would not be read back is an error that names the type and the setting.

LangGraph's strict msgpack reads only types that it was told of; anything else comes back as the plain data it was made
of, silently, and mostly on another worker after a crash. So both ways are checked: what is written, and what is read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import ormsgpack
from langgraph._internal import _serde
from langgraph.checkpoint.serde import _msgpack, jsonplus
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.pregel import Pregel

from threadline.errors import ConfigurationError

__all__ = ["SETTING", "StrictSerializer", "TypeName", "UndeclaredTypeError", "declared_types", "types_of"]

SETTING: Final = "THREADLINE_MSGPACK_TYPES"
#: Module and class.
TypeName = tuple[str, ...]

_NAMED = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
#: Release 0.1.0 gave files' modules names that nobody can declare, and took the plain data for their objects.
_UNNAMED: Final = "threadline_agent_"
#: The extensions that name what they are an instance of, as LangGraph writes them.
_NAMING: Final = frozenset(
    {
        jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG,
        jsonplus.EXT_CONSTRUCTOR_POS_ARGS,
        jsonplus.EXT_CONSTRUCTOR_KW_ARGS,
        jsonplus.EXT_METHOD_SINGLE_ARG,
        jsonplus.EXT_PYDANTIC_V1,
        jsonplus.EXT_PYDANTIC_V2,
    }
)


class UndeclaredTypeError(TypeError):
    """The state holds an object whose type is not declared; the message says how to declare it."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(
            f"the state holds a {module}.{name}, which would not be read back from a checkpoint: "
            f"set {SETTING}={module}:{name} at the workers, or name the type in the graph's state schema"
        )


def declared_types(text: str) -> frozenset[TypeName]:
    """Read THREADLINE_MSGPACK_TYPES, `module:Class,…`. Raises ConfigurationError that names the variable."""
    found = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = _NAMED.fullmatch(part)
        if match is None:
            raise ConfigurationError(f"{SETTING}: {part!r} is not module:Class (such as shop.models:Order)")
        found.add((match[1], match[2]))
    return frozenset(found)


def types_of(graph: Pregel[Any, Any, Any, Any]) -> frozenset[TypeName]:
    """The types that a graph's own schemas name, and those of the subgraphs that are its nodes.

    A compiled graph knows them, but any copy of it (`with_config`) has lost them.
    """
    found: set[TypeName] = set()
    for one in (graph, *(subgraph for _name, subgraph in graph.get_subgraphs(recurse=True))):
        schemas = [*getattr(getattr(one, "builder", None), "schemas", ()), getattr(one, "context_schema", None)]
        channels = getattr(one, "channels", None)
        found |= _serde.build_serde_allowlist(schemas=cast("list[type[Any]]", schemas), channels=channels)
        found |= getattr(one, "_serde_allowlist", None) or set()
    return frozenset(found)


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer for these types and LangChain's own."""

    def __init__(self, types: frozenset[TypeName] = frozenset()) -> None:
        super().__init__(allowed_msgpack_modules=types or None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialise. Raises UndeclaredTypeError."""
        kind, data = super().dumps_typed(obj)
        if kind == "msgpack":
            for module, name in _named_in(data):
                if not self._reads(module, name):
                    raise UndeclaredTypeError(module, name)
        return kind, data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Deserialise. Raises UndeclaredTypeError."""
        with _blocked() as blocked:
            value = super().loads_typed(data)
        for module, name in blocked:
            if not module.startswith(_UNNAMED):
                raise UndeclaredTypeError(module, name)
        return value

    def _reads(self, module: str, name: str) -> bool:
        allowed = self._allowed_msgpack_modules
        if (module, name) in _msgpack.SAFE_MSGPACK_TYPES or allowed is True:
            return True
        return allowed is not None and (module, name) in allowed


def _named_in(data: bytes) -> set[tuple[str, str]]:
    """The types that msgpack data names, at any depth; nothing is made or imported."""
    found: set[tuple[str, str]] = set()

    def look(code: int, inner: bytes) -> None:
        # Only extensions are looked at; an array's bytes (EXT_NUMPY_ARRAY) are unpacked like any other.
        value = ormsgpack.unpackb(inner, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
        if code in _NAMING and isinstance(value, list):
            found.add((str(value[0]), str(value[1])))

    ormsgpack.unpackb(data, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
    return found


_reading = threading.local()


@contextmanager
def _blocked() -> Iterator[list[tuple[str, str]]]:
    """What LangGraph refuses to read in this thread meanwhile."""
    before, mine = getattr(_reading, "blocked", None), []  # type: list[tuple[str, str]] | None, list[tuple[str, str]]
    _reading.blocked = mine
    try:
        yield mine
    finally:
        _reading.blocked = before


def _on_event(event: SerdeEvent) -> None:
    blocked = getattr(_reading, "blocked", None)
    if blocked is not None and event["kind"] == "msgpack_blocked":
        blocked.append((event["module"], event["name"]))


register_serde_event_listener(_on_event)
