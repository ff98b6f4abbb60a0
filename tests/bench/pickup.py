"""How long until a job of a killed worker runs elsewhere: SIGKILL again and again, default settings, one JSON line.

`PYTHONPATH=tests python -m bench.pickup [--kills 14] [--workers 3]`. Measured from the signal to the arrival of
`resumed` at a subscriber. A killed worker is replaced; each kill waits until another worker is older than the lease,
as it is in a service that was not started this minute (V2).
"""

from __future__ import annotations

import argparse
import asyncio
import time

from bench.figures import say, seconds
from bench.house import House, house
from support.workers import WorkerHandle
from threadline import Client
from threadline.job import Job

_LEASE_SECONDS = 15.0


async def measure(made: House, kills: int, workers: int) -> list[float]:
    """Seconds from each kill to the pick-up."""
    alive: dict[WorkerHandle, float] = {}
    found: list[float] = []

    async def start() -> None:
        alive[await asyncio.to_thread(made.start)] = time.monotonic()

    for _ in range(workers):
        await start()
    async with Client(redis_url=made.urls.redis_url, database_url=made.urls.database_url) as client:
        for _ in range(kills):
            while time.monotonic() - sorted(alive.values())[1] < _LEASE_SECONDS + 1:
                await asyncio.sleep(0.1)
            job = await client.enqueue("slow", {"done": [], "until": 6, "seconds": 0.2})
            found.append(await _kill_in_mid_run(job, alive))
            await job.result(timeout=60)
            await start()
    return found


async def _kill_in_mid_run(job: Job, alive: dict[WorkerHandle, float]) -> float:
    killed = 0.0
    async for event in job.events():
        if event.type == "updates" and not killed:
            worker_id = (await job.status()).worker_id
            victim = next(worker for worker in alive if worker.worker_id == worker_id)
            del alive[victim]
            killed = time.monotonic()
            victim.kill()
        elif event.type == "resumed":
            return time.monotonic() - killed
    raise AssertionError("the job ended before its worker was killed")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=14)
    parser.add_argument("--workers", type=int, default=3)
    wanted = parser.parse_args()
    with house() as made:
        say("pickup_after_kill", **seconds(asyncio.run(measure(made, wanted.kills, wanted.workers))))


if __name__ == "__main__":
    main()
