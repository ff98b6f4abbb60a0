"""Warnings of Python, and exceptions that nobody caught, are log lines like any other."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any, TextIO

import structlog

__all__ = ["log_what_nobody_catches"]

log = structlog.get_logger(__name__)


def log_what_nobody_catches() -> None:
    """Take the places of what prints to stderr: `warnings.showwarning`, the hooks of threads, finalizers and exit."""
    warnings.showwarning = _on_warning
    threading.excepthook = _on_thread
    sys.unraisablehook = _on_unraisable
    sys.excepthook = _on_exit


def _on_warning(  # noqa: PLR0917 - the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del file, line
    # Its words may quote: pydantic's show the value that did not fit.
    log.warning("python.warning", category=category.__name__, at=f"{filename}:{lineno}", says=str(message))


def _on_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        name = "" if args.thread is None else args.thread.name
        log.error("exception.uncaught", where=f"thread {name}", exc_info=args.exc_value)


def _on_unraisable(unraisable: Any) -> None:
    # Its `object` is named by repr, which may hold anything.
    where = getattr(unraisable.object, "__qualname__", type(unraisable.object).__name__)
    log.error("exception.uncaught", where=f"cleaning up {where}", exc_info=unraisable.exc_value)


def _on_exit(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("exception.uncaught", where="the process, which ends", exc_info=error)
