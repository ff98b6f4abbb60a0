"""Log lines for a person at a terminal: short ids, the time of day, fields in the order in which they were given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from threadline_worker.telemetry.exceptions import as_text

__all__ = ["ConsoleLines"]

#: So much of an id tells the few jobs and workers of a screen apart.
_SHORT = 8


class ConsoleLines:
    """Renders the fields of a line; `colors` for a terminal."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, sort_keys=False, pad_event_to=18, pad_level=False, timestamp_key="time"
        )

    def __call__(self, logger: Any, name: str, event_dict: dict[str, Any]) -> str:
        """The line, without what says nothing to somebody who looks at one screen: trace, thread, whole ids."""
        shown = {field: value for field, value in event_dict.items() if value is not None}
        moment = shown.pop("timestamp", None)
        exception = shown.pop("exception", None)
        if "job_id" in shown:
            shown.pop("trace_id", None)
            shown.pop("thread_id", None)
        ids = {"job": str(shown.pop("job_id", ""))[:_SHORT], "worker": str(shown.pop("worker_id", ""))[-4:]}
        line = {"time": _time_of_day(moment), **shown, **{short: value for short, value in ids.items() if value}}
        if isinstance(exception, list):
            line["exception"] = as_text(exception)
        return self._render(logger, name, line)


def _time_of_day(moment: Any) -> str:
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return str(moment)
