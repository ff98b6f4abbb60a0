"""From the moment at which a graph makes an event to its receipt by `Job.events()`, with 1 and with 50 jobs streaming.

`PYTHONPATH=tests python -m bench.latency [--seconds 32]`. One JSON line each: milliseconds of `custom` events (ten a
step) and of `updates` (one a step), through one worker, all followers in one process. One job makes about ten steps a
second, each of the fifty one step a second and for half of the time. Counted is what is made while all jobs run: from
one second after the last of them was heard of first, to the first one's end; claims and ends are in no figure.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from bench.figures import milliseconds, say
from bench.house import House, house
from threadline import Client, Job

_MANY: Final = 50
#: Seconds between two events of a job: what one job does in a hurry fifty do at leisure.
_PAUSE: Final = {1: 0.01, _MANY: 0.1}
#: Of the time wanted: fifty have enough steps in less.
_SHARE: Final = {1: 1.0, _MANY: 0.5}
_SETTLED_SECONDS: Final = 1.0


@dataclass
class _Heard:
    """What the followers of so many jobs have heard: (made, delay) by the type of event."""

    jobs: int
    began: int = 0
    all_run: float = float("inf")
    first_end: float = float("inf")
    delays: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"custom": [], "updates": []})

    def counted(self, kind: str) -> list[float]:
        """Seconds of each event that was made while all jobs ran."""
        return [delay for made, delay in self.delays[kind] if self.all_run <= made < self.first_end]


async def _follow(job: Job, heard: _Heard) -> None:
    first = True
    async for event in job.events():
        received = time.monotonic()
        if event.terminal:
            heard.first_end = min(heard.first_end, received)
            if event.type != "succeeded":
                raise RuntimeError(event.data)
        elif event.type in heard.delays:
            made = (event.data if event.type == "custom" else event.data["step"])["made"]
            heard.delays[event.type].append((made, received - made))
            if first:
                first = False
                heard.began += 1
                if heard.began == heard.jobs:
                    heard.all_run = received + _SETTLED_SECONDS


async def _measure(bench: House, jobs: int, seconds: float) -> _Heard:
    heard, pause = _Heard(jobs), _PAUSE[jobs]
    given = {"steps": max(int(seconds * _SHARE[jobs] / (10 * pause)), 1), "pause": pause, "count": 0, "made": 0.0}
    async with (
        Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client,
        asyncio.TaskGroup() as followers,
    ):
        for _ in range(jobs):
            job = await client.enqueue("metronome", given, stream_modes=["custom", "updates"])
            followers.create_task(_follow(job, heard))
    return heard


def main() -> None:
    """One worker that takes all jobs at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=32.0)
    seconds = parser.parse_args().seconds
    agents, slots = "metronome=bench.metronome:metronome", str(_MANY)
    with house(THREADLINE_AGENTS=agents, THREADLINE_CONCURRENCY=slots) as bench:
        bench.start()
        asyncio.run(_measure(bench, 1, 1.0))  # warm
        for jobs in (1, _MANY):
            heard = asyncio.run(_measure(bench, jobs, seconds))
            figures = {kind: milliseconds(heard.counted(kind)) for kind in heard.delays}
            say("latency", what="made to received, ms", jobs=jobs, seconds_between_events=_PAUSE[jobs], **figures)


if __name__ == "__main__":
    main()
