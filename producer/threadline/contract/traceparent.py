"""W3C traceparent: every job has a trace, its producer's or one that any process can tell from the job's id."""

from __future__ import annotations

import hashlib
import re
from typing import Any

__all__ = ["job_span_id", "run_span_id", "sampled", "span_id_of", "trace_id_of", "traceparent_of", "well_formed"]

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


def span_id_of(traceparent: Any) -> str | None:
    """The span that asked for the job, 16 hex digits; None without a well-formed traceparent."""
    given = well_formed(traceparent)
    return None if given is None else given.split("-")[2]


def sampled(traceparent: str) -> bool:
    """Whether a well-formed traceparent says that its trace is recorded."""
    return bool(int(traceparent.split("-")[3], 16) & 1)


def traceparent_of(trace_id: int, span_id: int, *, is_sampled: bool) -> str:
    """The traceparent of a span whose ids are not zero."""
    return f"00-{trace_id:032x}-{span_id:016x}-{int(is_sampled):02x}"


def job_span_id(job_id: str) -> str:
    """The span that stands for the whole job: any process can tell it, so what each worker did has one parent."""
    return _digest("job", job_id)


def run_span_id(job_id: str, epoch: int) -> str:
    """The span of the claim with this epoch: whoever takes the job from a dead worker can say how that ended."""
    return _digest("run", job_id, str(epoch))


def _digest(*words: str) -> str:
    # Never zeros alone, which no span may be called: 1 of 2**64 would be.
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16].replace("0" * 16, "1" * 16)
