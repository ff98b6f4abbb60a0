"""Puts wake-ups for due jobs into arq's queue; safe to repeat, safe to lose."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from threadline.contract.arq_message import Message
from threadline.contract.keys import Keys
from threadline.contract.queues import DEFAULT_QUEUE

__all__ = ["send"]


async def send(redis: Redis, keys: Keys, messages: Sequence[Message], *, queue: str = DEFAULT_QUEUE) -> None:
    """Put messages into the queue and wake those who serve it, in two round trips. Raises redis' errors.

    Not arq's `enqueue_job`: it needs redis-py < 6 and remembers ids; contract.arq_message owns the layout.
    """
    if not messages:
        return
    # Redis' clock: with one's own, a machine whose clock is ahead would put the message into everybody's future.
    seconds, micros = await redis.time()
    due = seconds * 1000 + micros / 1000
    async with redis.pipeline(transaction=True) as pipe:
        for message in messages:
            pipe.psetex(message.key, message.ttl_ms, message.body)
        pipe.zadd(keys.queue_of(queue), {message.message_id: due for message in messages})
        pipe.publish(keys.wake_of(queue), len(messages))
        await pipe.execute()
