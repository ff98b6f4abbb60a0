"""Tokens per second through one worker with and without coalescing, and what Redis has to do for each.

`PYTHONPATH=tests python -m bench.tokens [TOKENS]`. One JSON line each; `unpublished` is the same run that streams none.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from redis.asyncio import Redis

from bench.house import House, house, say
from threadline import Client

_COMMANDS = ("evalsha", "xadd", "publish", "xrevrange", "expire")


async def _measure(bench: House, tokens: int, modes: list[str]) -> dict[str, Any]:
    async with (
        Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client,
        Redis.from_url(bench.urls.redis_url) as redis,
    ):
        warm = await client.enqueue("typist", {"messages": []}, stream_modes=modes)
        await warm.result(timeout=120)
        before, began = await _calls(redis), time.perf_counter()
        job = await client.enqueue("typist", {"messages": []}, stream_modes=modes)
        await job.result(timeout=120)
        seconds, after = time.perf_counter() - began, await _calls(redis)
        calls = {name: after[name] - before[name] for name in _COMMANDS}
        return {
            "tokens_per_second": round(tokens / seconds),
            "events": calls["xadd"],
            "redis_calls_per_token": round(calls["evalsha"] / tokens, 4),
            "redis_commands_per_token": round(sum(calls.values()) / tokens, 4),
        }


async def _calls(redis: Any) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name: int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in _COMMANDS}


def main(tokens: int) -> None:
    """Three workers, one after the other."""
    for name, coalesce, modes in (
        ("coalesced", "on", ["messages"]),
        ("one by one", "off", ["messages"]),
        ("unpublished", "on", ["updates"]),
    ):
        with house(
            THREADLINE_AGENTS="typist=bench.typist:typist", TEST_TOKENS=str(tokens), BENCH_COALESCE=coalesce
        ) as bench:
            bench.start()
            say("tokens", how=name, tokens=tokens, **asyncio.run(_measure(bench, tokens, modes)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
