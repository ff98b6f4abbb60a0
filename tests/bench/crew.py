"""Simulated workers, many in one process: all that coordinates them is real, only their jobs run nothing.

A part of `bench.scale`: `python -m bench.crew N WORK_SECONDS`, with a worker's environment. On SIGTERM it drains and
prints one JSON line: what its claims took and found, and which jobs they gave. Real are the worker's row, beat, sweep,
rescuer, adoption, arq's loop, claim, execution and its announcements. Left out is what would be N times in one process
for nothing: a thread for each beat (it is a task here), the metrics port, the saver's pool and the store. The workers
of a crew share a pool to Postgres and one to Redis; beats and rescuers have connections of their own, as they must.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, Final

import structlog
from arq.connections import ArqRedis

from threadline.contract.states import State
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database, Row
from threadline.log.append import EventLog
from threadline.redis_client import connect_redis
from threadline_worker import main as worker_main
from threadline_worker.announce import Announcer
from threadline_worker.execution import Execution, Services
from threadline_worker.liveness import Liveness
from threadline_worker.main import WorkerProcess
from threadline_worker.outcome import Lost, Outcome, Succeeded
from threadline_worker.settings import WorkerSettings
from threadline_worker.telemetry.traces import traces_of

#: Seconds between the beginnings of two workers: a fleet is rolled out, and its rounds are out of step.
_APART: Final = 0.05
#: Connections to Postgres that the calls of a crew share: as many as can have an answer at once, and some.
_POOL: Final = 24


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

        async def watched(ledger: Custody, *args: Any, **more: Any) -> Claim | Row | None:
            began = time.monotonic()
            try:
                found = await claim(ledger, *args, **more)
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


class _Beating(Liveness):
    """The real beat and its session, as a task of the one loop."""

    def start(self) -> None:
        """Begin to beat."""
        self._main = asyncio.get_running_loop()
        self._last_tick = self._last_beat = time.monotonic()
        self._task = self._main.create_task(self._beat_for_life())

    async def stop(self) -> None:
        """End the session."""
        self._stop.set()
        self._beat_soon()
        await self._task


class _Simulated(WorkerProcess):
    """A worker on the crew's connections."""

    database: Database
    redis: ArqRedis

    async def _connect(self, stack: AsyncExitStack) -> Services:
        client, keys = self._settings.client, self._keys
        ledger = Custody(self.database, self._queries, lease_seconds=self._settings.lease, vault=client.vault)
        events = EventLog(self.redis, keys, max_events=client.event_max, ttl_seconds=client.event_ttl_seconds)
        nothing: Any = SimpleNamespace(soon=asyncio.Event(), run=asyncio.Event().wait)
        return Services(
            settings=self._settings,
            keys=keys,
            ledger=ledger,
            checkpoints=nothing,
            effects=nothing,
            redis=self.redis,
            events=events,
            announcer=Announcer(ledger, events, self._metrics),
            agents=self._agents,
            liveness=self._liveness(ledger),
            metrics=self._metrics,
            courier=nothing,
            store=nothing,
            traces=traces_of({}, self.worker_id),
        )


async def _outcome(execution: Execution) -> Outcome:
    """A run announces its claim, waits, and has succeeded: no graph, no checkpoint, no token."""
    lifted = await execution._announce_claim(execution._run.claim, 0)
    if lifted is None:
        return Lost()
    execution._run.claim = lifted.claim
    await asyncio.sleep(float(sys.argv[2]))
    return Succeeded({"state": str(State.SUCCEEDED)})


def _simulate() -> None:
    """Put the stand-ins in."""
    idle: Any = SimpleNamespace(run=asyncio.Event().wait, stop=lambda: None)
    for name in ("expose", "keeper_of", "schedule_of"):
        setattr(worker_main, name, lambda *_args, **_more: idle)
    worker_main.Liveness = _Beating  # type: ignore[misc]  # the simulation
    Execution._outcome = _outcome  # type: ignore[method-assign]  # the simulation


async def _crew(size: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = WorkerSettings.from_env()
    redis: Any = connect_redis(settings.redis_url, kind=ArqRedis)
    async with (
        Database(settings.database_url, application_name="crew", max_size=_POOL, limit=60) as database,
        asyncio.TaskGroup() as tasks,
    ):
        _Simulated.database, _Simulated.redis = database, redis
        workers = [_Simulated(settings) for _ in range(size)]
        for worker in workers:
            tasks.create_task(worker.run())
            await asyncio.sleep(_APART)
        await stop.wait()
        for worker in workers:
            worker.drain()
    await redis.aclose()


def main() -> None:
    """The command line."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger().setLevel(logging.ERROR)
    claims = _Claims()
    claims.watch()
    _simulate()
    asyncio.run(_crew(int(sys.argv[1])))
    print(json.dumps(vars(claims)), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
