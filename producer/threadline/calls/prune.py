"""Old jobs and threads go, idle threads are compacted; a thread that is in use, or comes into use, is left alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import msgspec
from redis.asyncio import Redis

from threadline import dispatch
from threadline.contract import arq_message
from threadline.contract.job import new_id
from threadline.contract.keys import Keys
from threadline.contract.states import ENDED, State
from threadline.errors import ResultTimeout
from threadline.ledger.database import Row
from threadline.ledger.internal import InternalJobs
from threadline.ledger.ledger import Ledger
from threadline.ledger.retention import Retention
from threadline.redis_client import REDIS_ERRORS

__all__ = ["Ages", "Pruned", "Pruning"]

#: Compactions at once: each takes a slot of a worker.
AT_ONCE: Final = 4
#: How long the first compaction waits for a worker before the whole is given up.
_PATIENCE_SECONDS: Final = 60.0
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 0.5
_REASONS: Final = 10


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """After how many seconds idle threads are `compact`ed, ended `jobs` and idle `threads` go; None: never.

    `waiting`: threads that wait for a person count as idle, too.
    """

    compact: float | None = None
    jobs: float | None = None
    threads: float | None = None
    waiting: bool = False


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What went: `jobs`, `dead_letters`, whole `threads`, of threads that were `compacted` the rows of `rows` by table.

    `skipped` threads were not compacted, because they came into use or no live worker has their agent; `failed` ones
    because the worker could not, and `reasons` has up to ten of the sentences why.
    """

    jobs: int = 0
    dead_letters: int = 0
    threads: int = 0
    compacted: int = 0
    skipped: int = 0
    failed: int = 0
    rows: dict[str, int] = {}
    reasons: list[str] = []


class Pruning:
    """One round over a ledger. `at_once` compactions are under way at a time."""

    def __init__(self, ledger: Ledger, redis: Redis | None, keys: Keys, *, at_once: int = AT_ONCE) -> None:
        self._retention = Retention(ledger)
        self._jobs = InternalJobs(ledger)
        self._redis = redis
        self._keys = keys
        self._at_once = at_once

    async def prune(self, ages: Ages) -> Pruned:
        """Raises BackendUnavailable, NotMigrated, ResultTimeout (no worker compacts)."""
        jobs = letters = threads = 0
        if ages.threads is not None:
            threads = await self._retention.prune_threads(ages.threads, waiting=ages.waiting)
        if ages.jobs is not None:
            jobs = await self._retention.prune_jobs(ages.jobs)
            letters = await self._retention.prune_letters(ages.jobs)
            await self._retention.prune_graphs(ages.jobs)
        found = Pruned()
        if ages.compact is not None:
            found = await self._compact(ages.compact, waiting=ages.waiting)
        return msgspec.structs.replace(found, jobs=jobs, dead_letters=letters, threads=threads)

    async def _compact(self, age: float, *, waiting: bool) -> Pruned:
        answers: list[Row | None] = []
        after = ""
        while page := await self._retention.idle(after, age, waiting=waiting):
            after = page[-1]
            while some := page[: self._at_once]:
                del page[: self._at_once]
                calls = (self._compact_one(thread_id, age, waiting=waiting) for thread_id in some)
                found = await asyncio.gather(*calls, return_exceptions=True)
                for error in found:
                    if isinstance(error, BaseException):
                        raise error
                answers += [answer for answer in found if not isinstance(answer, BaseException)]
        return _tally(answers)

    async def _compact_one(self, thread_id: str, age: float, *, waiting: bool) -> Row | None:
        """The ended job; None: it was not idle any more, or nobody has its agent."""
        job_id = new_id()
        redis = self._redis
        outcome, queue = await self._retention.hold(
            job_id, thread_id, age, waiting=waiting, dispatching=redis is not None
        )
        if outcome != "created":
            return None
        if redis is not None:
            message = arq_message.Message(arq_message.message_id(job_id, 0, 1), [job_id], int(time.time() * 1000))
            with suppress(*REDIS_ERRORS):  # the sweep finds that it was lost
                await dispatch.send(redis, self._keys, [message], queue=queue)
        try:
            answer = await self._answered(job_id)
        except BaseException:
            await self._jobs.cancel(job_id)
            raise
        await self._jobs.forget(job_id)
        return answer

    async def _answered(self, job_id: str) -> Row:
        pause, began = _FIRST_PAUSE, time.monotonic()
        while True:
            row = await self._jobs.look(job_id)
            if row["state"] in ENDED:
                return row
            if not row["started"] and time.monotonic() - began > _PATIENCE_SECONDS:
                raise ResultTimeout(
                    f"no worker has begun a compaction within {_PATIENCE_SECONDS:g} s: start one of this release"
                    " (`threadline worker`); what was done so far stays"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_PAUSE)


def _tally(answers: list[Row | None]) -> Pruned:
    done = [answer for answer in answers if answer is not None and answer["state"] == State.SUCCEEDED]
    failed = [answer for answer in answers if answer is not None and answer["state"] != State.SUCCEEDED]
    rows: Counter[str] = Counter()
    for answer in done:
        rows.update(answer["result"]["rows"])
    reasons = dict.fromkeys(f"{answer['code']}: {answer['message'] or ''}" for answer in failed)
    return Pruned(
        compacted=len(done),
        skipped=len(answers) - len(done) - len(failed),
        failed=len(failed),
        rows=dict(rows),
        reasons=list(reasons)[:_REASONS],
    )
