"""W3C traceparent: every job has a trace, its producer's or one that any process can tell from the job's id."""

from __future__ import annotations

import hashlib
import re
from typing import Any

__all__ = ["trace_id_of", "well_formed"]

#: https://www.w3.org/TR/trace-context/#traceparent-header, version 00; ids of zeros are invalid there.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


def well_formed(traceparent: Any) -> str | None:
    """The traceparent, or None: the standard has readers ignore what is not well-formed, and no job fails for it."""
    if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return None


def trace_id_of(job_id: str, traceparent: Any = None) -> str:
    """The trace a job belongs to, 32 hex digits: its traceparent's, else its own id, or a digest of that."""
    if given := well_formed(traceparent):
        return given.split("-")[1]
    return job_id if _TRACE_ID.fullmatch(job_id) else hashlib.sha256(job_id.encode()).hexdigest()[:32]
