"""One pipe for all logs: structlog's, and what arq, psycopg and langchain say through the standard library."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.processors import ExceptionRenderer, JSONRenderer
from structlog.tracebacks import ExceptionDictTransformer

__all__ = ["configure_logs"]

#: These say per job or per connection what we say better; their warnings stay.
_CHATTY = ("arq", "psycopg", "psycopg.pool", "httpx", "httpcore", "openai", "anthropic", "langsmith", "urllib3")


def configure_logs(level: str = "info", form: str | None = None, *, reticent: bool = False) -> None:
    """Write to stderr. `form` is json or console; None means console on a terminal and json elsewhere.

    `reticent`: of an exception its type and its way are shown, not what it says, which may be a user's words.
    """
    console = form == "console" or (form is None and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        # Without locals: they hold messages and keys.
        else [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_unsaid] if reticent else []),
                *render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


def _unsaid(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        way = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        event["exception"] = "\n".join([type(error).__name__, *way])
    return event
