"""A worker's memory (RSS) while Redis is black-holed for a minute under token streams of several jobs.

`PYTHONPATH=tests python -m bench.blackhole [--seconds 60] [--jobs 8]`. One JSON line in MiB: `start` is what the worker
has when it has streamed for a while with Redis at hand, `peak` its most from then on, `dark_end` what it has when Redis
comes back, `end` what it has when all jobs have ended. Each job says 250 pieces of 200 characters a second, so that
after about 40 s a job's tokens reach their bound (2 MiB, unsent.py) and the oldest are dropped; step events and ends
must all arrive, else it ends with 1. `with_redis_mib` is the growth in as long a time (10 s at most) before, with Redis
at hand.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final

import psutil  # type: ignore[import-untyped]  # it has no stubs here

from bench.figures import say
from bench.house import House, house
from support.fault_proxy import FaultProxy
from support.workers import WorkerHandle
from threadline import Client, Job

_WARM_SECONDS: Final = 8.0
_LONGEST_CONTROL: Final = 10.0
_AFTER_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_SPEECH: Final[dict[str, Any]] = {"size": 200, "pause": 0.004, "said": 0}


class _Memory:
    """A process' RSS in MiB, looked at all the time while `watch` runs."""

    def __init__(self, worker: WorkerHandle) -> None:
        self._process = psutil.Process(worker.pid)
        self.peak = 0.0

    @property
    def now(self) -> float:
        return float(self._process.memory_info().rss / 2**20)

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now)
            await asyncio.sleep(_LOOK_SECONDS)


async def _measure(bench: House, seconds: float, jobs: int) -> tuple[dict[str, Any], list[str]]:
    async with (
        FaultProxy(bench.urls.redis_url) as proxy,
        Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client,
        asyncio.TaskGroup() as tasks,
    ):
        worker = await asyncio.to_thread(bench.workers.start, REDIS_URL=proxy.url)
        memory, control = _Memory(worker), min(seconds, _LONGEST_CONTROL)
        until = time.monotonic() + _WARM_SECONDS + control + seconds + _AFTER_SECONDS
        started = [
            await client.enqueue("talker", {**_SPEECH, "until": until}, stream_modes=["messages", "updates"])
            for _ in range(jobs)
        ]
        await asyncio.sleep(_WARM_SECONDS)
        warm = memory.now
        await asyncio.sleep(control)
        start = memory.now
        watching = tasks.create_task(memory.watch())
        await proxy.set("blackhole")
        await asyncio.sleep(seconds)
        dark_end = memory.now
        await proxy.set("pass")
        await asyncio.gather(*[job.result(timeout=60) for job in started])
        told = [await _told(job) for job in started]
        watching.cancel()
        mib = {"start": start, "peak": memory.peak, "dark_end": dark_end, "end": memory.now}
        return {
            "mib": {name: round(value, 1) for name, value in mib.items()},
            "with_redis_mib": {"seconds": control, "start": round(warm, 1), "end": round(start, 1)},
            "jobs_that_dropped_tokens": worker.seen().count("publish.dropped"),
            "events": dict(sum((counted for counted, _wrong in told), Counter())),
        }, [wrong for _counted, wrong in told if wrong]


async def _told(job: Job) -> tuple[Counter[str], str]:
    """What the job's log tells by type, and what is missing that must not be."""
    events = [event async for event in job.events()]
    steps = [event.data["talk"]["said"] for event in events if event.type == "updates"]
    said = (await job.result())["said"]
    counted = Counter(event.type for event in events)
    whole = steps == list(range(1, said + 1)) and counted["started"] == counted["succeeded"] == 1
    return counted, "" if whole else f"{job.job_id}: {said} steps, in the log {steps} and {dict(counted)}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=8)
    wanted = parser.parse_args()
    env = {"THREADLINE_AGENTS": "talker=bench.talker:talker", "THREADLINE_CONCURRENCY": str(wanted.jobs)}
    with house(**env) as bench, suppress(KeyboardInterrupt):
        figures, wrong = asyncio.run(_measure(bench, wanted.seconds, wanted.jobs))
        say("blackhole", what="RSS of a worker", seconds=wanted.seconds, jobs=wanted.jobs, **figures)
        for line in wrong:
            print(line, file=sys.stderr)  # noqa: T201 - a program
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
