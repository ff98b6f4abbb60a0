"""What waits for Redis, in order: bounded in bytes and in number, and whatever is left out leaves a mark where it was.

Three bounds, each for one job:

- Tokens (`messages`) are dropped, the oldest first, above 2,000 events or 2 MiB.
- So are `custom` and `tools` events, which a tool may send without end, above 10,000: a log keeps no more by default.
- All others are never dropped: a run has only so many steps. Above 8 MiB the data of the oldest that are larger than
  1 KiB is replaced by `{"truncated": true, "bytes": n}`.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from threadline_worker.origins import Origin
from threadline_worker.serialise import truncated

__all__ = ["Unsent", "Waiting"]

_TOKENS: Final = frozenset({"messages"})
_CHATTER: Final = frozenset({"custom", "tools"})
_MOST_TOKENS: Final = 2_000
_MOST_TOKEN_BYTES: Final = 2 * 2**20
_MOST_CHATTER: Final = 10_000
_MOST_BYTES: Final = 8 * 2**20
#: Data up to this size is kept whatever happens.
_SMALL: Final = 1_024
#: After a drop there is room again, so that each walk through the queue serves many events.
_ROOM: Final = 0.75


class Waiting:
    """An event without its position. `data` is JSON; `gap` says that something was dropped just before it."""

    __slots__ = ("at", "data", "gap", "kind", "ns", "origin", "what")

    def __init__(self, kind: str, ns: tuple[str, ...], data: bytes, *, origin: Origin, at: str, what: str = "") -> None:
        self.kind = kind
        self.ns = ns
        self.data = data
        self.origin = origin
        self.at = at
        self.what = what
        self.gap = False


class Unsent:
    """One job's queue. `dropped` counts events by type, `cut` those whose data was replaced."""

    def __init__(self) -> None:
        self._queue: deque[Waiting] = deque()
        self._gap_at_the_end = False
        self._tokens = 0
        self._chatter = 0
        self._token_bytes = 0
        self._other_bytes = 0
        self._cut_above = _MOST_BYTES
        self.dropped: Counter[str] = Counter()
        self.cut = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def size(self) -> int:
        """Bytes of data that wait."""
        return self._other_bytes + self._token_bytes

    @property
    def positions(self) -> int:
        """How many positions the waiting events will take, those that mark gaps included."""
        return len(self._queue) + sum(waiting.gap for waiting in self._queue) + self._gap_at_the_end

    @property
    def pressing(self) -> bool:
        """Whether something may soon be cut or dropped for its size: the sender should have its turn."""
        return self._other_bytes > _MOST_BYTES // 2 or self._token_bytes > _MOST_TOKEN_BYTES // 2

    def put(self, waiting: Waiting) -> None:
        """Take one more at the end."""
        waiting.gap, self._gap_at_the_end = self._gap_at_the_end, False
        self._queue.append(waiting)
        self._account(waiting, 1)
        if self._tokens > _MOST_TOKENS or self._token_bytes > _MOST_TOKEN_BYTES:
            self._drop(_TOKENS, int(_MOST_TOKENS * _ROOM), int(_MOST_TOKEN_BYTES * _ROOM))
        if self._chatter > _MOST_CHATTER:
            self._drop(_CHATTER, int(_MOST_CHATTER * _ROOM), self._other_bytes)
        if self._other_bytes > self._cut_above:
            self._cut()

    def take(self, most: int, most_bytes: int) -> list[Waiting]:
        """The next ones: at least one if there is any, at most so many and so much."""
        taken: list[Waiting] = []
        while self._queue and len(taken) < most and (not taken or len(self._queue[0].data) <= most_bytes):
            waiting = self._queue.popleft()
            self._account(waiting, -1)
            most_bytes -= len(waiting.data)
            taken.append(waiting)
        if not self._queue:
            self._cut_above = _MOST_BYTES
        return taken

    def clear(self) -> None:
        """Forget everything."""
        self.take(len(self._queue), self.size)
        self._gap_at_the_end = False

    def _account(self, waiting: Waiting, sign: int) -> None:
        if waiting.kind in _TOKENS:
            self._tokens += sign
            self._token_bytes += sign * len(waiting.data)
        else:
            self._chatter += sign * (waiting.kind in _CHATTER)
            self._other_bytes += sign * len(waiting.data)

    def _drop(self, kinds: frozenset[str], most: int, most_bytes: int) -> None:
        """Drop the oldest of these kinds until so many and so much is left; each gap is marked where it is."""
        count = sum(waiting.kind in kinds for waiting in self._queue)
        size = sum(len(waiting.data) for waiting in self._queue if waiting.kind in kinds)
        kept: deque[Waiting] = deque()
        gap = False
        for waiting in self._queue:
            if waiting.kind in kinds and (count > most or size > most_bytes):
                count, size = count - 1, size - len(waiting.data)
                self._account(waiting, -1)
                self.dropped[waiting.kind] += 1
                gap = True
                continue
            waiting.gap = waiting.gap or gap
            gap = False
            kept.append(waiting)
        self._queue, self._gap_at_the_end = kept, gap

    def _cut(self) -> None:
        for waiting in self._queue:
            if self._other_bytes <= _MOST_BYTES * _ROOM:
                break
            if waiting.kind not in _TOKENS and len(waiting.data) > _SMALL:
                data = truncated(len(waiting.data))
                self._other_bytes -= len(waiting.data) - len(data)
                waiting.data = data
                self.cut += 1
        # What is left is small: it may grow by as much again before the next walk.
        self._cut_above = max(_MOST_BYTES, int(self._other_bytes / _ROOM))
