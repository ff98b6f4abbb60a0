"""One pipe for all logs: structlog's, and what arq, psycopg and langchain say through the standard library."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from structlog.processors import JSONRenderer

from threadline_worker.telemetry.console import ConsoleLines
from threadline_worker.telemetry.outlet import Outlet
from threadline_worker.telemetry.redaction import Redaction
from threadline_worker.telemetry.secrets import Secrets

__all__ = ["configure_logs", "name_process"]

#: These say per job or per connection what we say better; their warnings stay.
_CHATTY: Final = ("arq", "psycopg", "psycopg.pool", "httpx", "httpcore", "openai", "anthropic", "langsmith", "urllib3")
#: Logging belongs to the process, and so does this: not every thread inherits the context of the one that starts it.
_process: Final[dict[str, str]] = {}


def configure_logs(
    level: str = "info", form: str | None = None, *, content: bool = False, secrets: Secrets | None = None
) -> None:
    """Write to stderr. `form` is json or console; None means console on a terminal and json elsewhere.

    `content`: show what users and agents say, and what exceptions say, which may quote them. `secrets` never show; by
    default those of the environment.
    """
    terminal = sys.stderr.isatty()
    console = form == "console" or (form is None and terminal)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_process,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        # What nobody will see costs as little as possible.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render = ConsoleLines(colors=terminal) if console else JSONRenderer()
    outlet = Outlet(sys.stderr)
    outlet.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[Redaction(render, secrets or Secrets(), content=content)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [outlet]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


def name_process(**fields: str) -> None:
    """Fields of every line of this process, in whatever thread: its worker's id."""
    _process.update(fields)


def _add_process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in _process.items():
        event.setdefault(name, value)
    return event
