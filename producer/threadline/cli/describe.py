"""A job's status as lines for people; whole when piped, never wider than the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from threadline.cli.output import cut, one_line
from threadline.contract.codec import dumps
from threadline.contract.job import JobStatus
from threadline.contract.queues import DEFAULT_QUEUE

__all__ = ["age", "clock", "counted", "described", "short", "table"]

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_HEAD: Final = ("JOB", "STATE", "AGENT", "AGE", "THREAD", "USER")
_GAP: Final = 2


def age(seconds: float) -> str:
    """A duration in its largest unit: `12s`, `5m`, `3h`, `8d`; a moment yet to come counts as now."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def clock(seconds: float) -> str:
    """A duration as a clock shows it: `0:42`, `1:02:03`."""
    whole = int(max(0.0, seconds))
    hours, rest = divmod(whole, _HOUR)
    minutes, left = divmod(rest, _MINUTE)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def counted(number: int, what: str) -> str:
    """A number of things: `1 call`, `2 calls`, `12.3k tokens`."""
    return f"{short(number)} {what}" + ("" if number == 1 else "s")


def short(number: int) -> str:
    """A number in a few characters: 950, 12.3k, 4.5M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def described(status: JobStatus) -> Iterator[str]:
    """One `name value` line for each thing worth telling."""
    rows: list[tuple[str, str]] = [
        ("job", status.job_id),
        ("state", str(status.state)),
        ("agent", status.agent),
        ("thread", status.thread_id),
        ("user", status.user_id),
        ("queue", "" if status.queue == DEFAULT_QUEUE else status.queue),
        ("worker", status.worker_id or ""),
        ("version", status.worker_version or ""),
        ("graph", status.agent_fingerprint or ""),
        ("epoch", str(status.epoch)),
        ("charged", _charged(status)),
        ("created", _moment(status.created_at)),
        ("started", _moment(status.started_at)),
        ("finished", _moment(status.finished_at)),
        ("took", _took(status)),
        ("code", str((status.error or {}).get("code") or "")),
        ("message", str((status.error or {}).get("message") or "")),
        ("webhook", _webhook(status.webhook)),
        ("metadata", dumps(status.metadata).decode() if status.metadata else ""),
    ]
    return (f"{name:<9} {one_line(value, 2000)}" for name, value in rows if value)


def table(jobs: Sequence[JobStatus], width: int | None) -> Iterator[str]:
    """A head and one line a job, cut at `width` columns (None: not at all)."""
    now = datetime.now(UTC)
    rows = [_HEAD, *(_row(job, now) for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        # Only the last column, the user's, may have wide characters, and nothing stands to its right.
        line = (" " * _GAP).join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        yield line if width is None else cut(line, width)


def _row(job: JobStatus, now: datetime) -> tuple[str, ...]:
    since = age((now - job.created_at).total_seconds()) if job.created_at else ""
    return (job.job_id, str(job.state), job.agent, since, job.thread_id, one_line(job.user_id))


def _moment(moment: datetime | None) -> str:
    return moment.astimezone().isoformat(sep=" ", timespec="seconds") if moment else ""


def _took(status: JobStatus) -> str:
    if status.started_at is None or status.finished_at is None:
        return ""
    return clock((status.finished_at - status.started_at).total_seconds())


def _webhook(report: dict[str, Any] | None) -> str:
    """Where the report of the latest end stands: `pending after 2 tries, 503, next try 2026-11-20 09:00:05+01:00`."""
    if report is None:
        return ""
    parts = [str(report["state"])]
    if report["state"] == "held":
        parts = ["held: no worker that looked has THREADLINE_WEBHOOK_SECRETS"]
    elif report["attempts"]:
        parts = [f"{report['state']} after {report['attempts']} tr{'y' if report['attempts'] == 1 else 'ies'}"]
    if report["status"]:
        parts.append(str(report["status"]))
    if report["answer"] and report["state"] != "delivered":
        parts.append(str(report["answer"]))
    if report["state"] == "pending" and report["next_at"]:
        parts.append(f"next try {_moment(datetime.fromisoformat(report['next_at']))}")
    return ", ".join(parts)


def _charged(status: JobStatus) -> str:
    counts = ((status.failures, "failure"), (status.stalls, "stall"))
    return ", ".join(counted(count, what) for count, what in counts if count)
