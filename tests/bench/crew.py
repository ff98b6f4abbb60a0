"""Simulated workers, many in one process: all of a worker is real, but its jobs run nothing. A part of `bench.scale`.

`python -m bench.crew N WORK_SECONDS`, with a worker's environment. On SIGTERM it drains and prints one JSON line: what
its claims took and found, and which jobs they gave.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from typing import Any, Final

import structlog

from threadline.contract.states import State
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Row
from threadline_worker import intake
from threadline_worker.execution import Execution
from threadline_worker.main import WorkerProcess
from threadline_worker.outcome import Lost, Outcome, Succeeded
from threadline_worker.settings import WorkerSettings

#: Workers that begin at once: a fleet is rolled out, not switched on.
_AT_ONCE: Final = 10


class _Claims:
    """What `Custody.claim` took and gave, in this process."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.jobs: list[str] = []
        self.moments: list[float] = []
        self.misses = 0
        self.errors: dict[str, int] = {}

    def watch(self) -> None:
        """From now on."""
        claim = Custody.claim

        async def watched(ledger: Custody, *args: Any) -> Claim | Row | None:
            began = time.monotonic()
            try:
                found = await claim(ledger, *args)
            except Exception as error:
                self.errors[type(error).__name__] = self.errors.get(type(error).__name__, 0) + 1
                raise
            if isinstance(found, Claim):
                self.seconds.append(time.monotonic() - began)
                self.moments.append(time.monotonic())
                self.jobs.append(found.job_id)
            else:
                self.misses += 1
            return found

        Custody.claim = watched  # type: ignore[assignment,method-assign]  # counted, not changed


def _run_nothing(seconds: float) -> None:
    """A run announces its claim, waits, and has succeeded: no graph, no checkpoint, no token."""

    async def outcome(execution: Execution) -> Outcome:
        lifted = await execution._announce_claim(execution._run.claim, 0)
        if lifted is None:
            return Lost()
        execution._run.claim = lifted.claim
        if seconds:
            await asyncio.sleep(seconds)
        return Succeeded({"state": str(State.SUCCEEDED)})

    Execution._outcome = outcome  # type: ignore[method-assign]  # the simulation


async def _crew(size: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    workers = [WorkerProcess(WorkerSettings.from_env()) for _ in range(size)]
    beginning = asyncio.Semaphore(_AT_ONCE)

    async def work(worker: WorkerProcess) -> None:
        async with beginning:
            running = asyncio.create_task(worker.run())
            await asyncio.sleep(0.2)
        await running

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(work(worker))
        await stop.wait()
        for worker in workers:
            worker.drain()


def main() -> None:
    """The command line."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger().setLevel(logging.ERROR)
    claims = _Claims()
    claims.watch()
    _run_nothing(float(sys.argv[2]))
    asyncio.run(_crew(int(sys.argv[1])))
    print(json.dumps(vars(claims)), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    assert intake.Execution is Execution
    main()
