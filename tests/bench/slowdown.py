"""What publishing costs a run of 30 steps: with a subscriber, without one, and with a Redis that answers 50 ms late.

`PYTHONPATH=tests python -m bench.slowdown [--pairs 32] [--work '10 ms']`. One JSON line each. Its ratios are medians
over pairs: a run and the same one with publishing off (bench/unpublished.py) in the same round of the same worker; the
order within a round is random. They are of

- `steps`: from the beginning of the first step to the end of the last;
- `step`: the median step of a run, which others on the machine disturb less;
- `job`: from the claim to the commit of its end, so also announcing the claim and waiting until the last event is in
  the log, which are once a job, whatever its steps.

`cpu_more_ms` is what the worker's process used more during `steps`. Two workers after each other: the second one
reaches Redis through a proxy, which delays requests and answers by 25 ms each while the job runs that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bench.figures import paired, say
from bench.house import House, house
from bench.unpublished import UNPUBLISHED
from support.fault_proxy import FaultProxy
from threadline import Client, Job

__all__ = ["WORK", "Run", "compared", "ended"]

_STEPS: Final = 30
_WARM: Final = 2
WORK: Final[dict[str, dict[str, float]]] = {
    "0 ms": {"blocks": 0, "wait": 0.0},
    "5 ms": {"blocks": 1, "wait": 0.004},
    "10 ms": {"blocks": 2, "wait": 0.008},
    "100 ms": {"blocks": 2, "wait": 0.098},
}
_POLL_SECONDS: Final = 0.02
#: Half of it on each way.
_LATE_SECONDS: Final = 0.05
_OFF: Final = "publishing off"
_ALONE: Final = "without a subscriber"
_FOLLOWED: Final = "with a subscriber"
_LATE: Final = "Redis 50 ms late"


class Run(NamedTuple):
    """Milliseconds of one run."""

    steps: float
    step: float
    job: float
    cpu: float


async def _run(client: Client, how: str, work: str) -> Run:
    thread_id = f"{UNPUBLISHED if how == _OFF else ''}{uuid.uuid4().hex}"
    given = {"steps": _STEPS, "count": 0, **WORK[work]}
    job = await client.enqueue("thirty", given, thread_id=thread_id, stream_modes=["updates"])
    if how == _FOLLOWED:
        async for _event in job.events():
            pass
    await ended(job)
    values, status = await job.result(), await job.status()
    assert status.started_at, status
    assert status.finished_at, status
    moments = values["moments"]
    return Run(
        (moments[-1] - moments[0]) * 1000,
        statistics.median(later - earlier for earlier, later in pairwise(moments)) * 1000,
        (status.finished_at - status.started_at).total_seconds() * 1000,
        values["cpu"] * 1000,
    )


async def ended(job: Job) -> None:
    """By the ledger: whoever waits for `result()` listens to the job's channel, and so is a subscriber."""
    while (await job.status()).finished_at is None:
        await asyncio.sleep(_POLL_SECONDS)


async def _rounds(client: Client, proxy: FaultProxy | None, hows: Sequence[str], work: str, pairs: int) -> None:
    found: dict[str, list[Run]] = {how: [] for how in (_OFF, *hows)}
    for number in range(-_WARM, pairs):
        for how in random.sample(list(found), len(found)):
            async with _redis(proxy, late=how == _LATE):
                run = await _run(client, how, work)
            if number >= 0:
                found[how].append(run)
    off = found.pop(_OFF)
    for how, runs in found.items():
        say("slowdown", what=how, against=_OFF, steps=_STEPS, work_per_step=work, **compared(runs, off))


@asynccontextmanager
async def _redis(proxy: FaultProxy | None, *, late: bool) -> AsyncIterator[None]:
    if proxy is None or not late:
        yield
        return
    await proxy.set(f"latency:{_LATE_SECONDS / 2}")
    try:
        yield
    finally:
        await proxy.set("pass")
        await asyncio.sleep(2 * _LATE_SECONDS)  # what was on its way arrives


def compared(runs: Sequence[Run], off: Sequence[Run]) -> dict[str, Any]:
    pairs = list(zip(runs, off, strict=True))
    return {
        "pairs": len(pairs),
        "steps_ratio": paired([one.steps / other.steps for one, other in pairs]),
        "step_ratio": paired([one.step / other.step for one, other in pairs]),
        "job_ratio": paired([one.job / other.job for one, other in pairs]),
        "job_more_ms": paired([one.job - other.job for one, other in pairs], 1),
        "cpu_more_ms": paired([one.cpu - other.cpu for one, other in pairs], 1),
        "off_ms": {name: round(statistics.median(getattr(run, name) for run in off), 1) for name in Run._fields},
    }


async def _measure(bench: House, pairs: int, works: Sequence[str]) -> None:
    async with Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client:
        worker = await asyncio.to_thread(bench.start)
        for work in works:
            await _rounds(client, None, [_ALONE, _FOLLOWED], work, pairs)
        await asyncio.to_thread(worker.terminate)
        async with FaultProxy(bench.urls.redis_url) as proxy:
            worker = await asyncio.to_thread(bench.workers.start, REDIS_URL=proxy.url)
            for work in works:
                await _rounds(client, proxy, [_LATE], work, pairs)
            await asyncio.to_thread(worker.terminate)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--work", choices=WORK, action="append", help="per step; 0 ms and 10 ms by default")
    wanted = parser.parse_args()
    with house(THREADLINE_AGENTS="thirty=bench.thirty:thirty") as bench, suppress(KeyboardInterrupt):
        asyncio.run(_measure(bench, wanted.pairs, wanted.work or ["0 ms", "10 ms"]))


if __name__ == "__main__":
    main()
