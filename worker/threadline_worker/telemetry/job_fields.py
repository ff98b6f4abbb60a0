"""The fields that say which job a log line is about, the same wherever the job was heard of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from threadline.contract.traceparent import trace_id_of

__all__ = ["job_fields"]


def job_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """`job_id, thread_id, agent, epoch, trace_id` of a row of the ledger, as far as the row has them.

    The trace is known if the row has `options` or `traceparent`; without one of them it would be a guess.
    """
    fields = {name: row[name] for name in ("job_id", "thread_id", "agent", "epoch") if row.get(name) is not None}
    if "traceparent" in row:
        fields["trace_id"] = trace_id_of(row["job_id"], row["traceparent"])
    elif "options" in row:
        fields["trace_id"] = trace_id_of(row["job_id"], row["options"].get("traceparent"))
    return fields
