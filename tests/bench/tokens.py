"""Tokens per second through one worker with and without coalescing, and what Redis has to do for each.

`PYTHONPATH=tests python -m bench.tokens [TOKENS]`. One JSON line each, all as fast as the graph can make them, so that
what publishing costs is between the first two and the third: `dropped` is the same stream of LangGraph's with
publishing off (bench/unpublished.py). `not streamed` is the same graph without `messages`.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from bench.figures import say
from bench.house import House, house
from bench.unpublished import UNPUBLISHED
from threadline import Client

_COMMANDS: Final = ("evalsha", "xadd", "publish", "xrevrange", "expire")


class _Way(NamedTuple):
    """One way to stream. `coalesce` is for the worker (bench/typist.py)."""

    name: str
    mode: str
    coalesce: str = "on"
    thread: str = ""


_WAYS: Final = (
    _Way("coalesced", "messages"),
    _Way("one by one", "messages", coalesce="off"),
    _Way("dropped", "messages", thread=UNPUBLISHED),
    _Way("not streamed", "updates"),
)


async def _measure(bench: House, tokens: int, way: _Way) -> dict[str, Any]:
    async with (
        Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client,
        Redis.from_url(bench.urls.redis_url) as redis,
    ):
        await _type(client, way)  # warm
        before, began = await _calls(redis), time.perf_counter()
        await _type(client, way)
        seconds, after = time.perf_counter() - began, await _calls(redis)
        calls = {name: after[name] - before[name] for name in _COMMANDS}
        return {
            "tokens_per_second": round(tokens / seconds),
            "events": calls["xadd"],
            "redis_calls_per_token": round(calls["evalsha"] / tokens, 4),
            "redis_commands_per_token": round(sum(calls.values()) / tokens, 4),
        }


async def _type(client: Client, way: _Way) -> None:
    job = await client.enqueue(
        "typist", {"messages": []}, thread_id=f"{way.thread}{uuid.uuid4().hex}", stream_modes=[way.mode]
    )
    await job.result(timeout=120)


async def _calls(redis: Any) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name: int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in _COMMANDS}


def main(tokens: int) -> None:
    """One worker for each way, one after the other."""
    env = {"THREADLINE_AGENTS": "typist=bench.typist:typist", "TEST_TOKENS": str(tokens)}
    for way in _WAYS:
        with house(**env, BENCH_COALESCE=way.coalesce) as bench:
            bench.start()
            say("tokens", how=way.name, tokens=tokens, **asyncio.run(_measure(bench, tokens, way)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
