"""What a deploy costs: rounds in which all workers are restarted one by one under load; one JSON line.

`PYTHONPATH=tests python -m bench.rolling_restart [--rounds 5] [--workers 3] [--jobs 12]`. The delay of a job is from
the drain's `released` to `resumed` on another worker, by the times that the ledger and the new worker wrote into its
log. Nothing may be lost and nothing charged: that is counted, too, and a violation ends the program with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bench.figures import say, seconds
from bench.house import House, house
from threadline import Client
from threadline.contract.events import Event

_STEPS = 60


@dataclass
class Tally:
    """What the subscribers saw."""

    delays: list[float] = field(default_factory=list)
    jobs: int = 0
    charged: int = 0
    wrong: list[str] = field(default_factory=list)


async def measure(made: House, rounds: int, workers: int, jobs: int) -> Tally:
    """Restart all workers so many times while so many jobs run."""
    tally = Tally()
    alive = [await asyncio.to_thread(made.start) for _ in range(workers)]
    async with Client(redis_url=made.urls.redis_url, database_url=made.urls.database_url) as client:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as conversations:
            for _ in range(jobs):
                conversations.create_task(_converse(client, stop, tally))
            for _ in range(rounds):
                for _ in range(workers):
                    old = alive.pop(0)
                    await asyncio.to_thread(old.terminate)
                    alive.append(await asyncio.to_thread(made.start))
            stop.set()
    return tally


async def _converse(client: Client, stop: asyncio.Event, tally: Tally) -> None:
    """One job after another; each writes down how it was handed over."""
    while not stop.is_set():
        job = await client.enqueue("slow", {"done": [], "until": _STEPS, "seconds": 0.1})
        events = [event async for event in job.events()]
        tally.jobs += 1
        tally.delays += _hand_overs(events)
        status = await job.status()
        tally.charged += status.failures + status.stalls
        done = (await job.result())["done"] if status.state == "succeeded" else []
        if done != list(range(_STEPS)) or any(event.type == "gap" for event in events):
            tally.wrong.append(f"{job.job_id} {status.state} {done}")


def _hand_overs(events: list[Event]) -> list[float]:
    found: list[float] = []
    released: Event | None = None
    for event in events:
        if event.type == "released":
            released = event
        elif event.type == "resumed" and released is not None:
            found.append((_at(event) - _at(released)).total_seconds())
    return found


def _at(event: Event) -> datetime:
    return datetime.fromisoformat(event.at)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=12)
    wanted = parser.parse_args()
    with house() as made, contextlib.suppress(KeyboardInterrupt):
        tally = asyncio.run(measure(made, wanted.rounds, wanted.workers, wanted.jobs))
        figures: dict[str, Any] = {"jobs": tally.jobs, "charged": tally.charged, "wrong": len(tally.wrong)}
        say("rolling_restart_delay", **seconds(tally.delays), **figures)
        for line in tally.wrong:
            print(line, file=sys.stderr)  # noqa: T201 - a program
        sys.exit(bool(tally.wrong or tally.charged))


if __name__ == "__main__":
    main()
