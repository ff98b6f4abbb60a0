"""A subscription, acknowledged before it is read; what it cannot be sure of is a reason to read the log again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any, Final, Protocol, cast

from redis.asyncio import Redis

from threadline.contract.events import Event, EventType, decode_event
from threadline.contract.job import check_id
from threadline.encryption.vault import PLAIN, Vault
from threadline.encryption.wire import opened_event
from threadline.errors import CannotDecrypt
from threadline.redis_client import REDIS_ERRORS, uncancelled

__all__ = ["Feed", "Heard", "OfJob", "PubSub", "Subscription", "decoded", "subscribed"]

_ACKNOWLEDGED_WITHIN: Final = 5.0
_BEGINS: Final = frozenset({EventType.STARTED, EventType.RESUMED})


class Heard(Enum):
    """What is not an event."""

    #: The time is over.
    NOTHING = auto()
    #: redis-py subscribed again by itself, or somebody else's message: the log decides.
    DOUBT = auto()
    #: Another job of the thread runs, and this one has not been heard of since.
    OVERTAKEN = auto()


class Feed(Protocol):
    """Where a reader hears live events."""

    async def next(self, seconds: float) -> Event | Heard:
        """The next event, or what came instead within so many seconds. Raises redis' errors."""
        ...


class PubSub(Protocol):
    """What is used of redis-py's."""

    async def get_message(self, ignore_subscribe_messages: bool, timeout: float) -> dict[str, Any] | None:  # noqa: ASYNC109
        """A message, or None after so many seconds."""
        ...

    async def subscribe(self, channel: str) -> None:
        """Ask for a channel."""

    async def aclose(self) -> None:
        """Give the connection back."""


class Subscription:
    """One channel over one connection. What cannot be read is DOUBT: the log says whether it is ours."""

    def __init__(self, pubsub: PubSub, vault: Vault = PLAIN) -> None:
        self._pubsub = pubsub
        self._vault = vault

    async def next(self, seconds: float) -> Event | Heard:
        """See Feed."""
        message = await uncancelled(self._pubsub.get_message(ignore_subscribe_messages=False, timeout=seconds))
        if message is None:
            return Heard.NOTHING
        with suppress(CannotDecrypt):
            return (decoded(message["data"], self._vault) if message["type"] == "message" else None) or Heard.DOUBT
        return Heard.DOUBT


class OfJob:
    """The events of one job out of its thread's channel; `others` gets those of other jobs.

    `heard` says whether it was ever asked, that is whether the job had not ended in the log. With `overtaking`, a job
    that is silent after another one has begun is OVERTAKEN: at most one of a thread runs.
    """

    def __init__(self, feed: Feed, job_id: str, others: Callable[[Event], None], *, overtaking: bool) -> None:
        self._feed = feed
        self._job_id = job_id
        self._others = others
        self._overtaking = overtaking
        self._overtaken = False
        self.heard = False

    async def next(self, seconds: float) -> Event | Heard:
        """See Feed."""
        self.heard = True
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            heard = await self._feed.next(max(0.0, until - loop.time()))
            if not isinstance(heard, Event):
                return Heard.OVERTAKEN if heard is Heard.NOTHING and self._overtaken else heard
            if heard.job_id == self._job_id:
                return heard
            self._overtaken = self._overtaken or (self._overtaking and heard.type in _BEGINS)
            self._others(heard)


@asynccontextmanager
async def subscribed(redis: Redis, channel: str, vault: Vault = PLAIN) -> AsyncIterator[Subscription]:
    """A subscription whose acknowledgement has arrived: everything published from now on is heard."""
    pubsub = cast("PubSub", redis.pubsub())
    try:
        await uncancelled(pubsub.subscribe(channel))
        while (
            message := await uncancelled(
                pubsub.get_message(ignore_subscribe_messages=False, timeout=_ACKNOWLEDGED_WITHIN)
            )
        ) is not None:
            if message["type"] == "subscribe":
                yield Subscription(pubsub, vault)
                return
        raise TimeoutError("Redis did not acknowledge the subscription")
    finally:
        with suppress(*REDIS_ERRORS):
            await pubsub.aclose()


def decoded(data: bytes | str, vault: Vault = PLAIN) -> Event | None:
    """An event with a position; None for anything else: whoever reaches Redis may publish on a channel.

    Raises CannotDecrypt.
    """
    with suppress(ValueError):  # InvalidJob is one
        event = decode_event(data)
        check_id("job id", event.job_id)
        check_id("thread id", event.thread_id)
        return opened_event(vault, event) if event.position is not None else None
    return None
