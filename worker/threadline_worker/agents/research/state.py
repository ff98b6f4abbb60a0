"""What a research run carries besides messages and files: its sources, and who it runs for.

Everything here is plain JSON-like data, so that a checkpoint holds nothing but what strict msgpack accepts.
"""

from __future__ import annotations

from typing import TypedDict


class Source(TypedDict):
    """A place that a tool has returned text from; ``id`` is what the report cites."""

    id: str
    title: str
    location: str


class ResearchContext(TypedDict):
    """The run's owner and names; the worker passes it as ``context``."""

    user_id: str
    job_id: str
    thread_id: str


def merge_sources(known: dict[str, Source] | None, new: dict[str, Source] | None) -> dict[str, Source]:
    """Join two sets of sources; commutative for equal ids, so parallel tools and subagents may report in any order."""
    return {**(known or {}), **(new or {})}
