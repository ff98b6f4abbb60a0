"""When a report is tried again: ten tries over three days, longer pauses where the receiver asks for them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["PAUSES", "next_pause", "retry_after_seconds"]

#: Seconds after the first, second … failed try; Standard Webhooks' schedule. Behind the last one it is given up.
PAUSES: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: More than this a receiver cannot ask for.
_MOST_SECONDS: Final = 86_400.0


def next_pause(failures: int, retry_after: str | None = None, now: datetime | None = None) -> float | None:
    """Seconds until the next try after so many failed ones (this one included); None: no more tries."""
    if failures > len(PAUSES):
        return None
    # Up to a tenth longer, so that what failed together does not come back together. It is no secret.
    pause = PAUSES[failures - 1] * random.uniform(1.0, 1.1)  # noqa: S311
    return max(pause, retry_after_seconds(retry_after, now))


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float:
    """What the header asks for, as seconds or as a date; 0 if it is absent or means nothing, at most a day."""
    if not header:
        return 0.0
    if header.strip().isdecimal():
        return min(float(header), _MOST_SECONDS)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _MOST_SECONDS)
