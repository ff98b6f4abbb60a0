"""The producers and the subscribers of a chaos run: what was accepted, what was asked for, and what each job told.

All of it goes straight to the servers, past the proxies; a call that fails is repeated with the same idempotency key,
as a service would do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

from support.chaos_graph import true_time
from threadline import Client
from threadline.contract.events import Event
from threadline.errors import (
    BackendUnavailable,
    InvalidJob,
    JobNotFound,
    NotWaiting,
    ThreadBusy,
    ThreadMovedOn,
    ThreadOwnedByAnother,
)
from threadline.job import Job
from threadline_worker.embedded import ServerUrls

__all__ = ["Accepted", "Load"]

T = TypeVar("T")
#: A waiting message is in the ledger within a sweep of any worker; and some more for a busy machine.
_ADOPTED_SECONDS = 10.0
_ON_BUSY = ("enqueue",) * 7 + ("reject", "interrupt", "rollback")


@dataclass
class Accepted:
    """A job that exists, with everything that was asked of it."""

    job: Job
    tag: str
    rounds: int
    on_busy: str
    accepted_at: float
    #: How its every attempt takes its worker down: "", "kill" or "memory".
    poison: str = ""
    #: It ends with a question to a person, who is not there.
    asks: bool = False
    #: What a resume job answers to the question of its tag's first job.
    answer: str = ""
    #: Enqueued through Redis alone: until its adoption Redis may lose it.
    carried: bool = False
    cancels: int = 0
    rolled_back: bool = False
    retries: int = 0
    events: list[Event] = field(default_factory=list)
    #: Whether the subscriber has been told an end. It goes on reading where that end is a question to a person.
    told_all: bool = False
    followed: bool = False

    @property
    def waits(self) -> bool:
        """Whether the last that its subscriber was told is that a person is asked."""
        return bool(self.events) and self.events[-1].type == "interrupted"


class Load:
    """`async with Load(urls, rng) as load`; `run()` keeps the workers busy until it is cancelled."""

    def __init__(self, urls: ServerUrls, rng: random.Random, *, most_open: int = 12) -> None:
        self._rng = rng
        self._most_open = most_open
        self._client = Client(redis_url=urls.redis_url, database_url=urls.database_url)
        self._carrier = Client(redis_url=urls.redis_url)
        self._threads = [f"t{number}" for number in range(6)]
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        #: Cancels and answers that are still to be given: what they set going belongs to the run.
        self._errands: set[asyncio.Task[None]] = set()
        self._enough = asyncio.Event()
        self.accepted: dict[str, Accepted] = {}
        self.rejected = 0
        #: tag → rounds of enqueues that failed; Redis may have heard them all the same.
        self._unsure: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in (tasks := [*self._tasks, *self._errands]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        await self._carrier.aclose()

    @property
    def open(self) -> list[Accepted]:
        """Jobs whose end their subscriber has not seen."""
        return [accepted for accepted in self.accepted.values() if not accepted.told_all]

    async def run(self) -> None:
        """Several conversations, several jobs each; now and then a cancel, and a producer without Postgres.

        It ends after `stop()`, with its last job accepted or refused: cut off, nobody would know whether that exists.
        """
        while not self._enough.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rng.uniform(0.05, 0.5)):
                    await self._enough.wait()
            if len(self.open) >= self._most_open:
                continue
            thread = self._rng.choice([*self._threads, f"once-{self._numbers}"])
            carried = self._rng.random() < 0.1
            on_busy = "enqueue" if carried else self._rng.choice(_ON_BUSY)
            asks = not carried and self._rng.random() < 0.15
            rounds = self._rng.randint(1, 3)
            made = await self.enqueue(thread, rounds=rounds, on_busy=on_busy, carried=carried, asks=asks)
            if made is not None and self._rng.random() < 0.12:
                self._own(
                    self._cancel_later(made, self._rng.uniform(0, 2), rollback=self._rng.random() < 0.4), self._errands
                )
            if made is not None and made.asks and thread in self._threads:
                self._own(self._free(made), self._errands)

    def stop(self) -> None:
        """No more jobs from now on."""
        self._enough.set()

    async def enqueue(
        self,
        thread: str,
        *,
        rounds: int = 2,
        on_busy: str = "enqueue",
        poison: str = "",
        asks: bool = False,
        carried: bool = False,
        delay: float = 0,
    ) -> Accepted | None:
        """Until it is accepted or refused (None); due after `delay` seconds."""
        self._numbers += 1
        tag = f"j{self._numbers}"
        given = _given(tag, rounds, poison, asks=asks)
        key = f"key-{uuid.uuid4()}"
        client = self._carrier if carried else self._client
        due = datetime.now(UTC) + timedelta(seconds=delay) if delay else None

        async def call() -> Job:
            return await client.enqueue(
                "chaos", given, thread_id=thread, on_busy=on_busy, idempotency_key=key, run_at=due
            )

        try:
            # Redis alone: a call whose answer is lost may have been heard, and a second one would be a second job.
            job = await (call() if carried else self._repeated(call))
        except (ThreadBusy, BackendUnavailable):
            self.rejected += 1
            self._unsure[tag] = rounds
            return None
        accepted = Accepted(job, tag, rounds, on_busy, true_time(), poison, asks, carried=carried)
        return self._follow(accepted)

    async def equal_enqueues(self, thread: str, count: int) -> Accepted:
        """Many at once with the same key: one job (else the assertion fails here)."""
        self._numbers += 1
        tag, key = f"j{self._numbers}", f"key-{uuid.uuid4()}"
        given = _given(tag, 1)

        async def call() -> Job:
            return await self._client.enqueue("chaos", given, thread_id=thread, idempotency_key=key)

        jobs = await asyncio.gather(*(self._repeated(call) for _ in range(count)))
        assert len({job.job_id for job in jobs}) == 1, "equal enqueues made more than one job"
        return self._follow(Accepted(jobs[0], tag, 1, "enqueue", true_time()))

    async def cancel(self, accepted: Accepted, *, rollback: bool = False) -> None:
        """Ask once; a job that Redis alone has is unknown to the ledger yet."""
        accepted.cancels += 1
        accepted.rolled_back = accepted.rolled_back or rollback
        with contextlib.suppress(JobNotFound):
            await self._repeated(lambda: self._job(accepted).cancel(rollback=rollback))

    async def retry(self, accepted: Accepted) -> bool:
        """Ask; False: refused, because it has not ended or its thread has gone on."""
        try:
            await self._repeated(lambda: self._client.retry(accepted.job.job_id))
        except (InvalidJob, ThreadMovedOn, JobNotFound):
            return False
        accepted.retries += 1
        if accepted.told_all:
            self._follow(accepted)
        return True

    async def foreign(self, thread: str) -> list[str]:
        """Another user's job for a thread that is taken: refused, or set aside once it is looked at (its ids)."""
        given = _given("foreign", 1)
        with contextlib.suppress(ThreadOwnedByAnother, BackendUnavailable):
            await self._client.enqueue("chaos", given, thread_id=thread, user_id="another")
            raise AssertionError("a foreign job was accepted")
        with contextlib.suppress(BackendUnavailable):
            job = await self._carrier.enqueue("chaos", given, thread_id=thread, user_id="another")
            return [job.job_id]
        return []

    async def told(self, seconds: float) -> list[Accepted]:
        """Wait until every subscriber has seen its job's end; those that have not.

        What was enqueued through Redis alone and was in no ledger when Redis was emptied is waited for a little only.
        """
        deadline, patience = time.monotonic() + seconds, time.monotonic() + _ADOPTED_SECONDS
        while (left := await self._left()) or self._errands:
            if time.monotonic() > deadline:
                break
            if (
                not self._errands
                and all(one.carried and not one.events for one in left)
                and time.monotonic() > patience
            ):
                break
            await asyncio.sleep(0.05)
        return left

    async def _left(self) -> list[Accepted]:
        return self.open + await self._told_of_a_question_only()

    async def _told_of_a_question_only(self) -> list[Accepted]:
        """Jobs that waited for a person as far as their subscriber knows, and do so no more."""
        waiting = [one for one in self.accepted.values() if one.told_all and one.waits]
        return [one for one in waiting if (await self._repeated(self._job(one).status)).state != "interrupted"]

    def known(self, jobs: Mapping[str, dict[str, Any]]) -> list[Accepted]:
        """What was accepted, and what is in the ledger although its producer was told that it could not be."""
        found = list(self.accepted.values())
        for job_id, row in jobs.items():
            tag = (row["input"] or {}).get("tag")
            if job_id not in self.accepted and tag in self._unsure:
                job = Job(self._client, job_id, row["thread_id"], None)
                found.append(Accepted(job, tag, self._unsure[tag], "enqueue", true_time(), told_all=True))
        return found

    def _job(self, accepted: Accepted) -> Job:
        return Job(self._client, accepted.job.job_id, accepted.job.thread_id, None)

    def _follow(self, accepted: Accepted) -> Accepted:
        self.accepted[accepted.job.job_id] = accepted
        accepted.told_all = False
        if not accepted.followed:
            accepted.followed = True
            self._own(self._record(accepted))
        return accepted

    async def _record(self, accepted: Accepted) -> None:
        """The subscriber: one that is thrown out comes back and asks for what follows its last id."""
        while True:
            after = next((event.id for event in reversed(accepted.events) if event.id), None)
            try:
                async for event in self._job(accepted).events(after=after):
                    accepted.told_all = False
                    accepted.events.append(event)
            except (BackendUnavailable, JobNotFound):  # carried jobs are unknown until they are adopted
                await asyncio.sleep(0.2)
                continue
            accepted.told_all = True
            if not accepted.waits:
                accepted.followed = False
                return
            await asyncio.sleep(0.2)  # somebody may take the question back

    async def _cancel_later(self, accepted: Accepted, seconds: float, *, rollback: bool) -> None:
        await asyncio.sleep(seconds)
        await self.cancel(accepted, rollback=rollback)

    async def _free(self, accepted: Accepted) -> None:
        """A thread that waits for a person is free again once the question is answered, or taken back."""
        while not (accepted.told_all and accepted.events):
            await asyncio.sleep(0.1)
        await asyncio.sleep(self._rng.uniform(0, 1))
        if accepted.waits and self._rng.random() < 0.6:
            await self.answer(accepted)
        elif accepted.waits:
            await self.cancel(accepted, rollback=self._rng.random() < 0.4)

    async def answer(self, accepted: Accepted) -> Accepted | None:
        """As a person would; None: meanwhile nobody asks any more."""
        question = accepted.events[-1].data["interrupts"][0]["id"]
        text, key = f"answer to {accepted.tag}", f"key-{uuid.uuid4()}"
        try:
            job = await self._repeated(
                lambda: self._client.resume(accepted.job.thread_id, values={question: text}, idempotency_key=key)
            )
        except (NotWaiting, InvalidJob):
            return None
        return self._follow(Accepted(job, accepted.tag, accepted.rounds, "enqueue", true_time(), answer=text))

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except BackendUnavailable:
                await asyncio.sleep(0.2)

    def _own(self, coroutine: Any, tasks: set[asyncio.Task[None]] | None = None) -> None:
        owner = self._tasks if tasks is None else tasks
        task = asyncio.create_task(coroutine)
        owner.add(task)
        task.add_done_callback(owner.discard)


def _given(tag: str, rounds: int, poison: str = "", *, asks: bool = False) -> dict[str, Any]:
    """The graph's input."""
    return {"tag": tag, "rounds": rounds, "poison": poison, "asks": asks, "done": []}
