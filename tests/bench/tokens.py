"""Tokens per second through one worker with and without coalescing, and what Redis has to do for each.

`PYTHONPATH=tests python -m bench.tokens [TOKENS]`. One JSON line each, medians of runs as fast as the graph can make
tokens. What publishing costs is between `coalesced` and `dropped`, which is the same stream of LangGraph's with
publishing off (bench/unpublished.py); `not streamed` is the same graph without `messages`. These three alternate in one
worker; `one by one` has a worker of its own.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from bench.figures import say
from bench.house import House, house
from bench.unpublished import UNPUBLISHED
from threadline import Client

_ROUNDS: Final = 3
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


async def _measure(bench: House, tokens: int, ways: Sequence[_Way]) -> None:
    found: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
    async with (
        Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client,
        Redis.from_url(bench.urls.redis_url) as redis,
    ):
        for number in range(_ROUNDS + 1):
            for way in random.sample(ways, len(ways)):
                run = await _run(client, redis, tokens, way)
                if number:  # the first one is for warming up
                    found[way.name].append(run)
    for name, runs in found.items():
        say("tokens", how=name, tokens=tokens, runs=len(runs), **_medians(runs))


async def _run(client: Client, redis: Any, tokens: int, way: _Way) -> dict[str, float]:
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


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


async def _type(client: Client, way: _Way) -> None:
    job = await client.enqueue(
        "typist", {"messages": []}, thread_id=f"{way.thread}{uuid.uuid4().hex}", stream_modes=[way.mode]
    )
    await job.result(timeout=120)


async def _calls(redis: Any) -> dict[str, int]:
    stats = await redis.info("commandstats")
    return {name: int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in _COMMANDS}


def main(tokens: int) -> None:
    """One worker for each setting of `coalesce`."""
    env = {"THREADLINE_AGENTS": "typist=bench.typist:typist", "TEST_TOKENS": str(tokens)}
    for coalesce in ("on", "off"):
        with house(**env, BENCH_COALESCE=coalesce) as bench:
            bench.start()
            asyncio.run(_measure(bench, tokens, [way for way in _WAYS if way.coalesce == coalesce]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
