"""How long ago, as people write it: a number and a unit, or an error that says how."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from threadline.errors import InvalidJob

__all__ = ["parse_age", "seconds_of_age"]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw])")
#: A hundred years: Postgres' timestamps reach further, and nobody waits longer.
_MOST_SECONDS: Final = 36_525 * 86_400.0


def parse_age(text: str) -> float:
    """`30d`, `12h`, `1.5w` (s, m, h, d, w) in seconds. Raises InvalidJob."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise InvalidJob(f"age {text[:40]!r}: give a number and a unit of s, m, h, d, w, such as 30d")
    return seconds_of_age(float(found[1]) * _UNITS[found[2]])


def seconds_of_age(age: float | timedelta) -> float:
    """An age in seconds; InvalidJob unless it is 0 to 100 years."""
    amount = age.total_seconds() if isinstance(age, timedelta) else age
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount <= _MOST_SECONDS:
        raise InvalidJob(f"age {age!r}: give seconds (or a timedelta), 0 to 100 years")
    return float(amount)
