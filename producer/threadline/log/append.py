"""Appends to a job's log and publishes in one script, or does neither; Redis itself refuses a stale epoch."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import IntEnum
from importlib.resources import files
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis

from threadline.contract.events import Event, EventId
from threadline.contract.keys import Keys
from threadline.encryption.vault import PLAIN, Vault
from threadline.encryption.wire import encoded_event

__all__ = ["Appended", "EventLog", "Verdict"]

_SCRIPT: Final = (files(__package__) / "append.lua").read_text(encoding="utf-8")


class Verdict(IntEnum):
    """What became of one event."""

    APPENDED = 1
    ALREADY_THERE = 0
    STALE = -1


class Appended(NamedTuple):
    """The log's last position before the call (None: it was empty) and the verdict on each event."""

    before: EventId | None
    verdicts: list[Verdict]

    @property
    def stale(self) -> bool:
        """Whether the log knows a higher epoch: these events were refused."""
        return Verdict.STALE in self.verdicts


class EventLog:
    """Writes logs; `max_events` and `ttl_seconds` bound each one (THREADLINE_EVENT_MAX, …_TTL_SECONDS)."""

    def __init__(self, redis: Redis, keys: Keys, *, max_events: int, ttl_seconds: int, vault: Vault = PLAIN) -> None:
        self._redis = redis
        self._keys = keys
        self._max = max_events
        self._ttl = ttl_seconds
        self._vault = vault
        self._script = redis.register_script(_SCRIPT)

    def encode(self, event: Event) -> bytes:
        """An event as `append` takes it."""
        return encoded_event(self._vault, event)

    async def append(
        self,
        job_id: str,
        thread_id: str,
        epoch: int,
        events: Sequence[tuple[int, bytes]],
        *,
        queued: bytes = b"",
        log_top: str | None = None,
    ) -> Appended:
        """Append `(n, encoded event)` pairs of one epoch, in order. Raises redis' errors.

        `queued` is put first where the log is empty; `log_top` is the last position that the epoch before gave away.

        Repeating a call whose answer was lost is harmless: what is there already is not written again.
        """
        args: list[Any] = [epoch, self._max, self._ttl, self._keys.thread(thread_id), queued, log_top or ""]
        for n, encoded in events:
            args += [n, encoded]
        answer = cast("Awaitable[list[Any]]", self._script(keys=[self._keys.events(job_id)], args=args))
        before, *verdicts = await answer
        text = before.decode() if isinstance(before, bytes) else before
        return Appended(EventId.parse(text) if text else None, [Verdict(verdict) for verdict in verdicts])

    async def nudge(self, job_id: str) -> None:
        """Say on the job's channel, and nowhere else, that the ledger has news. Raises redis' errors."""
        await self._redis.publish(self._keys.events(job_id), b"")
