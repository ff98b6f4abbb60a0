"""What metrics, logs and traces cost a run of 30 steps, all together against all off.

`PYTHONPATH=tests python -m bench.observability [--pairs 32] [--work '10 ms']`. One JSON line for each work. Two workers
on a queue of their own, so that runs alternate between them, in random order within a pair. *On*: metrics, scraped once
a second; JSON logs at level info into a pipe that is read; spans of each super-step to an OTLP collector in this
process. *Off*: metrics that drop (bench/unobserved.py), logs from errors on, no traces. Ratios are as in `slowdown`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import urllib.request
import uuid
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

from bench.figures import say
from bench.house import House, house
from bench.slowdown import WORK, Run, compared, ended
from support.otlp_receiver import Collector, collecting
from threadline import Client

_STEPS: Final = 30
_WARM: Final = 2
_SCRAPE_SECONDS: Final = 1.0


async def _run(client: Client, queue: str, work: str) -> Run:
    given = {"steps": _STEPS, "count": 0, **WORK[work]}
    job = await client.enqueue("thirty", given, thread_id=uuid.uuid4().hex, stream_modes=["updates"], queue=queue)
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


async def _pairs(client: Client, work: str, pairs: int) -> dict[str, Any]:
    found: dict[str, list[Run]] = {"on": [], "off": []}
    for number in range(-_WARM, pairs):
        for queue in random.sample(list(found), len(found)):
            run = await _run(client, queue, work)
            if number >= 0:
                found[queue].append(run)
    return compared(found["on"], found["off"])


async def _scrape(url: str) -> None:
    def get() -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own worker
            assert b"threadline_supersteps_total" in answer.read()

    while True:
        await asyncio.to_thread(get)
        await asyncio.sleep(_SCRAPE_SECONDS)


async def _measure(bench: House, collector: Collector, pairs: int, works: Sequence[str]) -> None:
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    on = await asyncio.to_thread(bench.workers.start, "--queue", "on", **traced)
    # It says nothing when it is ready: the first run waits for it.
    quiet = {"THREADLINE_AGENTS": "thirty=bench.unobserved:thirty", "THREADLINE_LOG_LEVEL": "error"}
    bench.workers.start("--queue", "off", wait=False, **quiet)
    async with Client(redis_url=bench.urls.redis_url, database_url=bench.urls.database_url) as client:
        scraping = asyncio.create_task(_scrape(on.metrics_url))
        for work in works:
            figures, spans, lines = await _counted(collector, on, _pairs(client, work, pairs))
            runs = pairs + _WARM
            say(
                "observability",
                what="metrics, logs and traces",
                against="all off",
                steps=_STEPS,
                work_per_step=work,
                spans_per_run=round(spans / runs, 1),
                log_lines_per_run=round(lines / runs, 1),
                **figures,
            )
        scraping.cancel()
        await asyncio.gather(scraping, return_exceptions=True)


async def _counted(collector: Collector, on: Any, measured: Any) -> tuple[dict[str, Any], int, int]:
    """What it gives, and the spans and lines that came meanwhile: without them nothing was measured."""
    spans, lines = len(collector.spans()), len(on.lines)
    figures = await measured
    spans, lines = len(collector.spans()) - spans, len(on.lines) - lines
    assert spans > _STEPS, "no traces arrived"
    assert lines, "nothing was logged"
    return figures, spans, lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--work", choices=WORK, action="append", help="per step; 10 ms and 100 ms by default")
    wanted = parser.parse_args()
    with (
        house(THREADLINE_AGENTS="thirty=bench.thirty:thirty") as bench,
        collecting() as collector,
        suppress(KeyboardInterrupt),
    ):
        asyncio.run(_measure(bench, collector, wanted.pairs, wanted.work or ["10 ms", "100 ms"]))


if __name__ == "__main__":
    main()
