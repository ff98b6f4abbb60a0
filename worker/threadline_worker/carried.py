"""Finds the jobs that waiting messages carry: the whole queue is walked, and no message is looked into twice (L5).

Every round reads the ids that wait. What was seen to be no carried job is remembered by its id for as long as it waits,
so a long queue costs one small page of ids for each thousand messages, and an empty one a single command.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final

from threadline.contract import arq_message
from threadline.contract.keys import Keys
from threadline.contract.queues import DEFAULT_QUEUE
from threadline_worker.messages import Unreadable, is_wake_up, job_of

__all__ = ["CarriedJobs"]

#: Ids in one page, and how many bodies, of how many bytes in all, are in memory at once.
_PAGE: Final = 1_000
_BODIES: Final = 500
_BODIES_BYTES: Final = 8_388_608
#: Ids that are remembered (some 100 bytes each); above it they are looked at again, a part each round.
_MOST_SEEN: Final = 200_000


class CarriedJobs:
    """The waiting messages of one queue, whose key is `key`. `clock` is monotonic seconds."""

    def __init__(
        self,
        redis: Any,
        keys: Keys,
        queue: str = DEFAULT_QUEUE,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = keys.queue_of(queue)
        self._redis = redis
        self._clock = clock
        #: Ids that carry nothing: of the last whole walk, and of the one that is under way.
        self._seen: set[bytes] = set()
        self._met: set[bytes] = set()
        self._from = 0

    async def waiting(self, seconds: float) -> AsyncGenerator[tuple[str, str, Any], None]:
        """Message id, job id and job of each due message that carries one, in the queue's order.

        The caller takes each out of the queue before it asks for the next. A walk that has used up its `seconds` ends,
        and the next one goes on there. Raises redis' errors; what was not handed out by then comes again.
        """
        deadline = self._clock() + seconds
        due = await self._now_ms()
        while True:
            page = await self._redis.zrangebyscore(self.key, "-inf", due, start=self._from, num=_PAGE)
            taken: set[bytes] = set()
            async with aclosing(self._of_page(page)) as found:
                async for message in found:
                    taken.add(message[0].encode())
                    yield message
                    if self._clock() > deadline:  # the rest of this page comes first in the next round
                        return
            # An id that was taken out may be sent again; and the rest has moved up.
            left = [raw for raw in page if raw not in taken]
            self._met.update(left)
            self._from += len(left)
            if len(page) < _PAGE:
                self._end_walk()
                return
            if self._clock() > deadline:
                return

    def _end_walk(self) -> None:
        """Whoever has not been met has left the queue."""
        self._seen = self._met if len(self._met) <= _MOST_SEEN else set()
        self._met = set()
        self._from = 0

    async def _of_page(self, page: list[bytes]) -> AsyncGenerator[tuple[str, str, Any], None]:
        for batch in _batches(await self._suspects([raw for raw in page if not self._known(raw)])):
            bodies = await self._redis.mget([arq_message.JOB_KEY_PREFIX + name for name in batch])
            for name, body in zip(batch, bodies, strict=True):
                found = None if body is None else job_of(body)
                # What is no call of ours, or carries nothing, is the consumer's once it comes to it.
                if found is None or isinstance(found, Unreadable) or found[1] is None:
                    self._met.add(name.encode())
                else:
                    yield name, *found

    def _known(self, raw: bytes) -> bool:
        return raw in self._met or raw in self._seen

    async def _suspects(self, unknown: list[bytes]) -> dict[str, int]:
        """Those that are not plain wake-ups, by their ids and sizes; what arq chokes on is left to the consumer."""
        names = [name for raw in unknown if (name := _text(raw)) is not None]
        if not names:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.strlen(arq_message.JOB_KEY_PREFIX + name)
            sizes: list[Any] = await pipe.execute(raise_on_error=False)
        return {
            name: size
            for name, size in zip(names, sizes, strict=True)
            if isinstance(size, int) and size > 0 and not is_wake_up(name, size)
        }

    async def _now_ms(self) -> int:
        seconds, micros = await self._redis.time()
        return int(seconds * 1000 + micros / 1000)


def _batches(sizes: dict[str, int]) -> Iterator[list[str]]:
    """In order; a body that is larger than a batch may be has one of its own."""
    batch: list[str] = []
    total = 0
    for name, size in sizes.items():
        if batch and (len(batch) >= _BODIES or total + size > _BODIES_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += size
    if batch:
        yield batch


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
