"""What was enqueued, and what a failing assertion says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from threadline.contract.job import JobRequest

__all__ = ["Enqueued", "Resumed", "matching"]

_MOST_SHOWN: Final = 20
_LONGEST: Final = 80


class Enqueued(JobRequest, frozen=True, kw_only=True):
    """One job as `enqueue` was asked for it; `connection` is the one that was given."""

    connection: Any = None


class Resumed(NamedTuple):
    """One answer: `values` by interrupt id."""

    job_id: str
    thread_id: str
    user_id: str
    values: dict[str, Any]


def matching(enqueued: Sequence[Enqueued], expected: Mapping[str, Any], count: int | None) -> list[Enqueued]:
    """Those with these fields. Raises AssertionError unless there are `count` (None: at least one) of them.

    TypeError for a field that no job has.
    """
    unknown = [name for name in expected if name not in Enqueued.__struct_fields__]
    if unknown:
        raise TypeError(f"no job has {', '.join(unknown)}: use {', '.join(Enqueued.__struct_fields__)}")
    found = [job for job in enqueued if not _differing(job, expected)]
    if len(found) == count or (count is None and found):
        return found
    raise AssertionError("\n".join(_failure(enqueued, expected, count, len(found))))


def _differing(job: Enqueued, expected: Mapping[str, Any]) -> list[str]:
    # The expected value on the left: unittest.mock.ANY and other matchers decide by themselves.
    return [name for name, value in expected.items() if not value == getattr(job, name)]  # noqa: SIM201 - the same


def _failure(enqueued: Sequence[Enqueued], expected: Mapping[str, Any], count: int | None, found: int) -> list[str]:
    wanted = ", ".join(f"{name}={_short(value)}" for name, value in expected.items()) or "any fields"
    number = "at least 1" if count is None else str(count)
    lines = [f"expected {number} enqueued with {wanted}; {found} of {len(enqueued)} match:"]
    for index, job in enumerate(enqueued[:_MOST_SHOWN], start=1):
        differing = _differing(job, expected)
        lines.append(f"  {index}. {_shown(job, expected)}" + (f"  (not: {', '.join(differing)})" if differing else ""))
    if len(enqueued) > _MOST_SHOWN:
        lines.append(f"  … {len(enqueued) - _MOST_SHOWN} more")
    if not enqueued:
        lines.append("  nothing was enqueued")
    return lines


def _shown(job: Enqueued, expected: Mapping[str, Any]) -> str:
    """What tells jobs apart: the main fields, those that were asked about, and what is not as usual."""
    usual = Enqueued(job_id="", agent="", input=None, thread_id="")
    always = {"agent", "input", "thread_id", *expected}
    return ", ".join(
        f"{name}={_short(value)}"
        for name, value in msgspec.structs.asdict(job).items()
        if name in always or (name != "job_id" and value != getattr(usual, name))
    )


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, str) else value)  # of a StrEnum only what it says
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
