"""The ledger, the log and the worker of a test: every change of a job raises its epoch and is an event, in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from threadline.contract.events import Event, EventId, decode_event, encode_event
from threadline.contract.states import State
from threadline.errors import JobNotFound
from threadline.ledger.transition_event import event_of, queued_event
from threadline.testing.script import End, Line, Script
from threadline.testing.stored import StoredJob, database_time

__all__ = ["WORKER", "Stage"]

#: The worker that all jobs run on.
WORKER: Final = "testing"


class Stage:
    """Tables and logs in memory. `agents` are those that live workers have, and whether they take text; None: any."""

    def __init__(self, agents: dict[str, bool] | None) -> None:
        self.agents = agents
        self.owners: dict[str, str] = {}
        self.jobs: dict[str, StoredJob] = {}
        self.logs: defaultdict[str, list[Event]] = defaultdict(list)
        #: By thread, as in schema/0006_stretches.sql: jobs and the first epochs of their stretches, in order.
        self.told: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self._scripts: defaultdict[str, list[Script]] = defaultdict(list)
        self._waiters: set[asyncio.Event] = set()
        self._seq = 0

    # Looking:

    def job(self, job_id: str) -> StoredJob:
        """Raises JobNotFound."""
        if (job := self.jobs.get(job_id)) is None:
            raise JobNotFound(f"no job {job_id} is known: check the id")
        return job

    def of_thread(self, thread_id: str) -> Iterator[StoredJob]:
        """The jobs of a thread, in order."""
        return iter(sorted((j for j in self.jobs.values() if j.thread_id == thread_id), key=lambda j: j.place))

    def is_head(self, job: StoredJob) -> bool:
        """O1: whether nothing of the thread stands before it."""
        return not any(other.before(job) for other in self.jobs.values())

    async def changed(self, patience: float) -> bool:
        """Wait until anything has changed; False if nothing did for so many seconds."""
        woken = asyncio.Event()  # of its own: the next one may wait in another event loop
        self._waiters.add(woken)
        try:
            await asyncio.wait_for(woken.wait(), patience)
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(woken)
        return True

    # Changing:

    def next_seq(self) -> int:
        """A number of its own for each job."""
        self._seq += 1
        return self._seq

    def add(self, job: StoredJob) -> bool:
        """Store a new job; whether it is due and first on its thread. It has not run when this returns."""
        self.jobs[job.job_id] = job
        head = job.run_at <= database_time() and self.is_head(job)
        if head:
            self._announce_queued(job)
        return head

    def change(self, job: StoredJob, state: State, transition: str, **columns: Any) -> None:
        """One transition: a new epoch and its event."""
        if job.state is State.INTERRUPTED or (job.state is State.QUEUED and job.transition in {"enqueue", "retry"}):
            self.told[job.thread_id].append((job.job_id, job.epoch + (job.state is State.INTERRUPTED)))
        job.state, job.transition, job.transition_at = state, transition, database_time()
        job.epoch += 1
        for name, value in columns.items():
            setattr(job, name, value)
        if state not in {State.QUEUED, State.RUNNING}:
            job.finished_at = job.transition_at
        log = self._announce_queued(job)
        self._append(job, msgspec.structs.replace(event_of(job.row()), prev=log[-1].id))

    def start(self, job: StoredJob) -> None:
        """A worker claims the job. Raises ValueError unless it is queued."""
        if job.state is not State.QUEUED:
            raise ValueError(f"job {job.job_id} is {job.state}: only a queued one can start")
        self.change(
            job,
            State.RUNNING,
            "claim",
            worker_id=WORKER,
            started_at=job.started_at or database_time(),
            finished_at=None,
        )

    def emit(self, job: StoredJob, line: Line) -> Event:
        """An event of a running job. Raises ValueError if it is not running."""
        self._check_running(job)
        last = self.logs[job.job_id][-1].position or EventId(0, 0)
        event = Event(
            id=str(EventId(job.epoch, last.n + 1)),
            job_id=job.job_id,
            thread_id=job.thread_id,
            type=line.type,
            ns=list(line.ns),
            data=line.data,
            step=line.step,
        )
        return self._append(job, event)

    def finish(self, job: StoredJob, end: End) -> None:
        """The worker's last word on a running job. Raises ValueError if it is not running."""
        self._check_running(job)
        columns = end._asdict()
        state = columns.pop("state")
        self.change(job, state, "finish", previous_worker=job.worker_id, **columns)

    def request_cancel(self, job: StoredJob, code: str) -> None:
        """Ask the worker of a running job to stop: it does at the event loop's next turn, as if a moment later."""
        job.cancel = code

        def stop() -> None:
            if job.state is State.RUNNING:
                self.finish(job, End(State.CANCELLED, code=job.cancel))
                self.advance()

        asyncio.get_running_loop().call_soon(stop)

    # Playing:

    def script(self, agent: str, script: Script) -> None:
        """The agent's runs take their scripts in order; the last one is for all later runs."""
        self._scripts[agent].append(script)
        self.advance()

    def play(self, job: StoredJob) -> None:
        """Start the job if need be and play its agent's next script. Raises ValueError without one."""
        scripts = self._scripts[job.agent]
        if not scripts:
            raise ValueError(f"agent {job.agent!r} has no script: call script({job.agent!r}, …) before")
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        if job.state is not State.RUNNING:
            self.start(job)
        for line in script.lines:
            self.emit(job, line)
        if (end := script.end(job.input)) is not None:
            self.finish(job, end)

    def advance(self) -> None:
        """Play whatever is due, first on its thread and has a script."""
        while (job := next(filter(self._playable, self.jobs.values()), None)) is not None:
            self.play(job)

    def has_script(self, job: StoredJob) -> bool:
        """Whether its agent has one."""
        return bool(self._scripts[job.agent])

    def _playable(self, job: StoredJob) -> bool:
        due = job.state is State.QUEUED and job.run_at <= database_time()
        return due and self.has_script(job) and self.is_head(job)

    def _check_running(self, job: StoredJob) -> None:
        if job.state is not State.RUNNING:
            raise ValueError(f"job {job.job_id} is {job.state}, not running: start() it first")

    def _announce_queued(self, job: StoredJob) -> list[Event]:
        log = self.logs[job.job_id]
        if not log:
            self._append(job, queued_event(job.job_id, job.thread_id, job.agent))
        return log

    def _append(self, job: StoredJob, event: Event) -> Event:
        """What a reader gets has been JSON: tuples are lists, too much data is cut."""
        event = decode_event(encode_event(event))
        self.logs[job.job_id].append(event)
        for woken in self._waiters:
            woken.set()
        return event
