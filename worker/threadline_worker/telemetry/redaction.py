"""No secret ever, and no word of users and agents unless it is asked for, leaves in a log line; no line is too long."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, Protocol

from threadline_worker.telemetry.exceptions import found_in, told
from threadline_worker.telemetry.secrets import SECRET, Secrets, names_a_secret

__all__ = ["CONTENT_FIELDS", "MOST_CHARACTERS", "Redaction"]

#: Fields that hold what users and agents say: their size is shown instead.
CONTENT_FIELDS: Final = frozenset(
    {
        *("input", "inputs", "message", "messages", "content", "contents", "prompt", "prompts", "value", "values"),
        *("result", "results", "arguments", "args", "kwargs", "output", "outputs", "text", "query", "question"),
        *("answer", "answers", "body", "payload", "request", "response", "completion", "document", "documents"),
        *("says", "citation", "report", "todos", "files", "tool_calls", "tool_input", "state_values"),
    }
)
#: Libraries that put requests and answers into what they log, at any level.
_QUOTING: Final = frozenset(
    {
        *("langchain", "langgraph", "langsmith", "deepagents", "openai", "anthropic", "httpx", "httpcore", "h11"),
        *("google", "mistralai", "cohere", "groq", "ollama", "litellm", "boto3", "botocore", "urllib3", "requests"),
        *("asyncio", "concurrent", "tavily"),
    }
)
#: A line as it is written, in characters; JSON's are ASCII.
MOST_CHARACTERS: Final = 16 * 1024
#: Looked at for secrets before it is cut, so that none is cut in half and passes.
_LOOKED_AT: Final = 16 * 1024
_FIRST: Final = ("timestamp", "level", "event", "logger", "job_id", "thread_id", "agent", "epoch", "worker_id")
_HIGHEST: Final = 2**64
_FIGURES: Final = (bool, int, float, type(None))
#: So many names are remembered, of so many characters.
_NAMES: Final = 1000
_SHORT_NAME: Final = 32


class _Limits(NamedTuple):
    """Characters of a text and of a key, fields or items of a collection, depth of collections."""

    text: int
    key: int
    items: int
    depth: int


#: Tried in turn, until the line is short enough; the last one fits whatever the fields hold.
_LIMITS: Final = (_Limits(8192, 128, 64, 6), _Limits(512, 64, 24, 3), _Limits(64, 32, 10, 0))


class Render(Protocol):
    """Makes a line of clean fields; structlog's renderers are such."""

    def __call__(self, logger: Any, name: str, event_dict: dict[str, Any]) -> str | bytes: ...


class Redaction:
    """structlog's last processor: cleans the fields and has them rendered. `content` shows contents, never secrets."""

    def __init__(self, render: Render, secrets: Secrets, *, content: bool) -> None:
        self._render = render
        self._secrets = secrets
        self._content = content
        self._names: dict[str, tuple[str, str]] = {}

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """The line, at most `MOST_CHARACTERS` long."""
        if self._secrets.look():
            self._names.clear()
        record: logging.LogRecord = event.pop("_record")
        if not event.pop("_from_structlog"):
            event["event"] = event["event"] if self._content else _foreign(record, event["event"])
        elif not record.name.startswith("threadline_worker"):  # an agent's own structlog
            event.setdefault("logger", record.name)
        if (error := found_in(event.pop("exc_info", None))) is not None:
            event["exception"] = self._told(error, event.get("job_id"))
        if repeated := getattr(record, "repeated", 0):
            event["repeated"] = repeated
        line = ""
        for limits in _LIMITS:
            line = str(self._render(logger, method, self._line(event, limits)))
            if len(line) <= MOST_CHARACTERS:
                break
        return line

    def _told(self, error: BaseException, job_id: Any) -> list[dict[str, Any]]:
        links = told(error, says=self._content)
        if not self._content:
            # A name of its own: `says` is a content field.
            links[0]["withheld"] = f"what it says: threadline status {job_id}" if job_id else "what it says"
        return links

    def _line(self, event: Mapping[str, Any], limits: _Limits) -> dict[str, Any]:
        ordered = {name: event[name] for name in _FIRST if name in event}
        return self._fields({**ordered, **event}, limits, limits.depth)

    def _fields(self, fields: Mapping[Any, Any], limits: _Limits, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, value in _some(fields.items(), limits.items):
            key, kind = self._name(_said(name), limits.key)
            if kind == "secret" and not isinstance(value, _FIGURES):
                plain[key] = SECRET
            elif kind == "content":
                plain[key] = _size(value)
            else:
                plain[key] = self._plain(value, limits, depth)
        if len(fields) > limits.items:
            plain["left_out"] = len(fields) - limits.items
        return plain

    def _name(self, name: str, most: int) -> tuple[str, str]:
        """The name as it is shown, and what it says of its value; names come again with each line."""
        if (found := self._names.get(name)) is not None and len(name) <= most:
            return found
        content = name in CONTENT_FIELDS and not self._content
        kind = "secret" if names_a_secret(name) else "content" if content else ""
        found = self._text(name, most), kind
        if len(name) <= _SHORT_NAME and len(self._names) < _NAMES:
            self._names[name] = found
        return found

    def _plain(self, value: Any, limits: _Limits, depth: int) -> Any:  # noqa: PLR0911 - a table of types
        match value:
            case bool() | None:
                return value
            case int() | float():  # what JSON cannot hold, or only at length, is no figure of ours
                return value if abs(value) < _HIGHEST else f"[{type(value).__name__}]"
            case str():
                return self._text(value, limits.text)
            case bytes() | bytearray() | memoryview():
                return _size(value)
            case Mapping():
                return self._fields(value, limits, depth - 1) if depth > 0 else _size(value)
            case list() | tuple() | set() | frozenset():
                if depth <= 0:
                    return _size(value)
                few = [self._plain(item, limits, depth - 1) for item in _some(value, limits.items)]
                return few if len(value) <= limits.items else [*few, f"[{len(value) - limits.items} more]"]
            case _:
                return self._text(self._object(value), limits.text)

    def _object(self, value: Any) -> str:
        """A message or an exception as a field is a content, whatever the field's name."""
        if self._content or isinstance(value, type) or type(value).__module__ in {"uuid", "datetime", "pathlib"}:
            return _said(value)
        return f"[{type(value).__name__}]"

    def _text(self, text: str, most: int) -> str:
        cut = text[:_LOOKED_AT]
        clean = self._secrets.without(cut)
        if len(text) > _LOOKED_AT:  # the end may be half a secret
            clean = clean[: max(len(clean) - max(self._secrets.longest, 4096), 0)]
        if len(clean) > most or len(text) > _LOOKED_AT:
            return f"{clean[:most]}… [{len(text)} characters]"
        return clean


def _foreign(record: logging.LogRecord, text: str) -> str:
    """Of a line of a library that quotes, and of any at debug, what its author wrote before anything was put in."""
    library = record.name.partition(".")[0].partition("_")[0]
    if record.levelno >= logging.INFO and library not in _QUOTING:
        return text
    if library == "asyncio":  # the first line says what happened, the others to whom
        return text.partition("\n")[0].partition("<")[0]
    # structlog has taken the arguments out of the record: a text that differs from its template had some.
    return record.msg if isinstance(record.msg, str) and record.msg != text else f"[{len(text)} characters]"


def _size(value: Any) -> str | None:
    match value:
        case None:
            return None
        case str():
            return f"[{len(value)} characters]"
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case Mapping() | list() | tuple() | set() | frozenset():
            return f"[{len(value)} items]"
        case _:
            return f"[{type(value).__name__}]"


def _some(items: Iterable[Any], most: int) -> list[Any]:
    return [item for item, _ in zip(items, range(most), strict=False)]


def _said(value: Any) -> str:
    try:
        return str(value)
    except Exception as failure:  # noqa: BLE001 - an object's __str__ is anyone's code
        return f"[{type(value).__name__}: its __str__ raises {type(failure).__name__}]"
