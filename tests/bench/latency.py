"""From the moment at which a graph makes an event to its receipt by `Job.events()`, with 1 and with 50 jobs streaming.

`PYTHONPATH=tests python -m bench.latency [PAUSE]`. One JSON line: milliseconds of `custom` events (ten a step, PAUSE
seconds apart, 0.1 by default) and of `updates` (one a step), through one worker, all followers in one process.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from bench.house import House, house, say
from threadline import Client, Job

_MANY: Final = 50
_STEPS: Final = 10


async def _follow(job: Job, delays: dict[str, list[float]]) -> None:
    async for event in job.events():
        received = time.monotonic()
        if event.type == "custom":
            delays["custom"].append(received - event.data["made"])
        elif event.type == "updates":
            delays["updates"].append(received - event.data["step"]["made"])
        elif event.terminal and event.type != "succeeded":
            raise RuntimeError(event.data)


async def _measure(bench: House, jobs: int, pause: float) -> dict[str, dict[str, float | int]]:
    delays: dict[str, list[float]] = defaultdict(list)
    started = {"steps": _STEPS, "pause": pause, "count": 0, "made": 0.0}
    async with (
        Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client,
        asyncio.TaskGroup() as followers,
    ):
        for _ in range(jobs):
            job = await client.enqueue("metronome", started, stream_modes=["custom", "updates"])
            followers.create_task(_follow(job, delays))
    return {name: _milliseconds(values) for name, values in sorted(delays.items())}


def _milliseconds(values: Sequence[float]) -> dict[str, float | int]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    most = round(max(values) * 1000, 1)
    return {"n": len(values), "p50": round(cuts[49] * 1000, 1), "p99": round(cuts[98] * 1000, 1), "max": most}


def main(pause: float) -> None:
    """One worker that takes all jobs at once."""
    agents, slots = "metronome=bench.metronome:metronome", str(_MANY)
    with house(THREADLINE_AGENTS=agents, THREADLINE_CONCURRENCY=slots) as bench:
        bench.start()
        asyncio.run(_measure(bench, 1, 0.01))  # warm
        figures: dict[str, Any] = {f"jobs_{n}": asyncio.run(_measure(bench, n, pause)) for n in (1, _MANY)}
        say("latency", unit="ms", pause_seconds=pause, **figures)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.1)
