"""The worker's log pipe in the test's own process: configured, read back as lines, and taken away again."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from threadline_worker.telemetry import logs
from threadline_worker.telemetry.secrets import Secrets
from threadline_worker.telemetry.uncaught import log_what_nobody_catches

__all__ = ["LogLines", "log_lines"]


class LogLines:
    """What was written. A stream without a descriptor, so that every line is there at once."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def clear(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()


@contextmanager
def log_lines(
    level: str = "info", form: str = "json", *, content: bool = False, env: dict[str, str] | None = None
) -> Iterator[LogLines]:
    """Within it everything that is logged goes to the lines; `env` is where secrets are looked for."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    hooks = warnings.showwarning, threading.excepthook, sys.unraisablehook, sys.excepthook, sys.stderr
    lines = LogLines()
    sys.stderr = lines.stream
    try:
        logs.configure_logs(level, form, content=content, secrets=Secrets(env or {}))
        log_what_nobody_catches()
        with structlog.contextvars.bound_contextvars():
            yield lines
    finally:
        warnings.showwarning, threading.excepthook, sys.unraisablehook, sys.excepthook, sys.stderr = hooks
        root.handlers[:], root.level = before
        logs._process.clear()
        structlog.reset_defaults()
