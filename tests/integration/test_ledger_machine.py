"""The real ledger does what a small model of it does, whatever is asked of it in whatever order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.ledger import Bench, bench_on, cloned, emptied
from threadline.contract.states import State
from threadline.errors import InvalidJob, ThreadBusy, ThreadMovedOn
from threadline.ledger.custody import Claim
from threadline_worker.embedded import ServerUrls

FAILURES = STALLS = 3
ENDED = {"succeeded", "failed", "cancelled", "interrupted"}
WORKERS = ("w1", "w2")
THREADS = "aaab"  # a story needs jobs that are in each other's way
MOSTLY_ENQUEUE = [*["enqueue"] * 6, "reject", "interrupt"]
MOST_OPEN = 4
TO_JOBS = ["cancel", "cancel", "cancel", "retry", "retry", "checkpoint", "come_due", "put_off", "grow_old"]
TO_WORKERS = ["die", "die", "live"]
TO_ALL = ["dispatch", "expire"]
MOSTLY_RELEASED = ["", "", "", *sorted(ENDED)]


@dataclass
class Model:
    """A job as it should be."""

    order: int
    thread: str
    state: str = "queued"
    epoch: int = 0
    worker: str | None = None
    code: str | None = None
    failures: int = 0
    stalls: int = 0
    due: bool = True
    started: bool = False
    overdue: bool = False
    dispatched: bool = False
    progressed: bool = False
    cancel: str | None = None

    @property
    def open(self) -> bool:
        return self.state in {"queued", "running", "interrupted"}

    def to(self, state: str, code: str | None = None) -> None:
        self.epoch += 1
        self.state, self.code = state, code
        if state in {"queued", "running"}:
            self.dispatched = self.dispatched and state == "running"
        if state != "running":
            self.worker = None

    def give_back(self, code: str, *, over: bool) -> None:
        """Release and rescue: a pending cancel wins, then a limit."""
        if self.cancel:
            self.to("cancelled", self.cancel)
        else:
            self.to("failed" if over else "queued", "poisoned" if over and code == "dead_worker" else code)

    def columns(self) -> tuple[Any, ...]:
        return self.state, self.epoch, self.worker, self.code, self.failures, self.stalls


class LedgerMachine(RuleBasedStateMachine):
    """Rules are the ledger's calls; after each the rows are compared with the model."""

    url: ClassVar[str]
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.context = bench_on(emptied(self.url), workers=WORKERS, size=1)
        self.bench: Bench = self.runner.run(self.context.__aenter__())
        self.model: dict[str, Model] = {}
        self.alive = set(WORKERS)
        self.claims: list[Claim] = []
        self.ids = itertools.count()

    def teardown(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    def do(self, call: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await call

        return self.runner.run(wait())

    def thread(self, name: str) -> list[tuple[str, Model]]:
        return [(job_id, job) for job_id, job in self.model.items() if job.thread == name]

    def head(self, job: Model) -> bool:
        """O1, O2: nothing that holds the thread stands before the job."""
        return not any(
            other is not job
            and other.open
            and (other.state == "running" or other.order < job.order)
            and not (other.state == "queued" and not other.started and not other.due)
            for _, other in self.thread(job.thread)
        )

    @initialize(target=jobs)
    def begin(self) -> Any:
        """No story is told about an empty ledger."""
        return multiple(*(self._enqueue(thread) for thread in "aab"))

    def _enqueue(self, thread: str, on_busy: str = "enqueue") -> str:
        stored = self.do(self.bench.enqueue(thread_id=thread, on_busy=on_busy))
        if on_busy == "interrupt":
            self._replace([job for _, job in self.thread(thread) if job.open])
        job = self.model[stored.job_id] = Model(next(self.ids), thread)
        job.dispatched = self.head(job)
        assert (stored.head, stored.created) == (job.dispatched, True)
        return str(stored.job_id)

    @precondition(lambda self: sum(job.open for job in self.model.values()) < MOST_OPEN)
    @rule(target=jobs, thread=st.sampled_from(THREADS), on_busy=st.sampled_from(MOSTLY_ENQUEUE))
    def enqueue(self, thread: str, on_busy: str) -> Any:
        if on_busy == "reject" and any(job.open for _, job in self.thread(thread)):
            with pytest.raises(ThreadBusy):
                self.do(self.bench.enqueue(thread_id=thread, on_busy=on_busy))
            return multiple()
        return self._enqueue(thread, on_busy)

    def _replace(self, before: list[Model]) -> None:
        for job in before:
            job.cancel = job.cancel or "replaced"
            if job.state != "running":
                job.to("cancelled", "replaced")

    @rule(thread=st.sampled_from(THREADS), worker=st.sampled_from(WORKERS), last_first=st.booleans())
    def claim(self, thread: str, worker: str, last_first: bool) -> None:
        """Try every job of a thread: at most one is had."""
        tried = self.thread(thread)
        for job_id, job in reversed(tried) if last_first else tried:
            self._claim(job_id, job, worker)

    def _claim(self, job_id: str, job: Model, worker: str) -> None:
        claim = self.do(self.bench.ledger.claim(job_id, worker))
        if not (job.state == "queued" and job.due and worker in self.alive and self.head(job)):
            assert claim is None
            return
        if job.overdue and not job.started:
            job.to("failed", "expired")
            assert claim["state"] == "failed"
            return
        job.to("running")
        job.worker, job.started, job.progressed = worker, True, False
        assert isinstance(claim, Claim)
        self.claims.append(claim)

    def _held(self, back: int) -> tuple[Claim, Model | None]:
        """One of the last claims, which may be long lost, and its job if it is still ours."""
        claim = self.claims[-1 - back % len(self.claims)]
        job = self.model[claim.job_id]
        return claim, job if (job.state, job.epoch) == ("running", claim.epoch) else None

    @precondition(lambda self: self.claims)
    @rule(
        back=st.integers(0, 3),
        end=st.sampled_from(MOSTLY_RELEASED),
        charge=st.booleans(),
        wait=st.booleans(),
    )
    def work(self, back: int, end: str, charge: bool, wait: bool) -> None:
        """A claim is given back, or its job ends."""
        claim, job = self._held(back)
        if end:
            self._finish(claim, job, end)
        else:
            self._release(claim, job, charge=charge, wait=wait)

    def _finish(self, claim: Claim, job: Model | None, state: str) -> None:
        row = self.do(self.bench.ledger.finish(claim, State(state), code="own"))
        assert (row is not None) == (job is not None)
        if job and job.cancel and state == "interrupted":
            job.to("cancelled", job.cancel)  # nobody would answer
        elif job:
            job.to(state, "own")

    def _release(self, claim: Claim, job: Model | None, *, charge: bool, wait: bool) -> None:
        call = self.bench.ledger.release(claim, "why", failure=charge, delay=3600.0 if wait else 0.0, limit=FAILURES)
        assert (self.do(call) is not None) == (job is not None)
        if job:
            job.failures += charge
            job.due = not wait
            job.give_back("why", over=charge and job.failures >= FAILURES)

    def _die(self, worker: str) -> None:
        rows = self.do(self.bench.rescue(worker, limit=STALLS))
        self.alive.discard(worker)
        lost = {job_id: job for job_id, job in self.model.items() if job.worker == worker}
        assert {row["job_id"] for row in rows} == set(lost)
        for job in lost.values():
            job.stalls = 0 if job.progressed else job.stalls + 1
            job.due = True
            job.give_back("dead_worker", over=job.stalls >= STALLS)

    def _live(self, worker: str) -> None:
        self.do(self.bench.worker(worker))
        self.alive.add(worker)

    @rule(job_id=jobs, what=st.sampled_from(TO_JOBS + TO_WORKERS + TO_ALL), worker=st.sampled_from(WORKERS))
    def meanwhile(self, job_id: str, what: str, worker: str) -> None:
        """What happens less often shares a rule."""
        to = [job_id] if what in TO_JOBS else [worker] if what in TO_WORKERS else []
        getattr(self, f"_{what}")(*to)

    def _checkpoint(self, job_id: str) -> None:
        thread = self.model[job_id].thread
        query = (
            "INSERT INTO threadline.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)"
            " VALUES (%s, '', %s, '{}', '{}')"
        )
        self.do(self.bench.sql(query, thread, f"{next(self.ids):09}"))
        for _, job in self.thread(thread):
            job.progressed = True

    def _cancel(self, job_id: str) -> None:
        job = self.model[job_id]
        status = self.do(self.bench.ledger.cancel(job_id))
        if job.state in {"queued", "interrupted"}:
            job.to("cancelled", "requested")
        elif job.state == "running":
            job.cancel = job.cancel or "requested"
        assert status.state == job.state

    def _retry(self, job_id: str) -> None:
        job = self.model[job_id]
        call = self.bench.ledger.retry(job_id)
        if job.state not in {"failed", "cancelled"}:
            with pytest.raises(InvalidJob):
                self.do(call)
        elif any(later.started and later.order > job.order for _, later in self.thread(job.thread)):
            with pytest.raises(ThreadMovedOn):
                self.do(call)
        else:
            self.do(call)
            job.to("queued")
            job.failures = job.stalls = 0
            job.due, job.overdue, job.cancel = True, False, None

    def _come_due(self, job_id: str, *, due: bool = True) -> None:
        """The time of a queued job comes, or is put off (as `run_at` would have)."""
        job = self.model[job_id]
        if job.state == "queued":
            self.do(self.bench.set(job_id, f"run_at = now() + interval '{'-1' if due else '3600'} seconds'"))
            job.due = due

    def _put_off(self, job_id: str) -> None:
        self._come_due(job_id, due=False)

    def _grow_old(self, job_id: str) -> None:
        job = self.model[job_id]
        if job.state == "queued":
            self.do(self.bench.set(job_id, "expires_at = now() - interval '1 second'"))
            job.overdue = True

    def _expire(self) -> None:
        rows = self.do(self.bench.ledger.expire())
        late = {
            job_id: job
            for job_id, job in self.model.items()
            if job.state == "queued" and job.overdue and not job.started
        }
        assert {row["job_id"] for row in rows} == set(late)
        for job in late.values():
            job.to("failed", "expired")

    def _dispatch(self) -> None:
        sent = {due.job_id: due.epoch for due in self.do(self.bench.ledger.dispatch_due())}
        heads = {
            job_id: job
            for job_id, job in self.model.items()
            if job.state == "queued" and job.due and not job.dispatched and self.head(job)
        }
        assert sent == {job_id: job.epoch for job_id, job in heads.items()}
        for job in heads.values():
            job.dispatched = True

    @invariant()
    def the_rows_are_the_models(self) -> None:
        rows = self.do(
            self.bench.sql(
                "SELECT job_id, state, epoch, CASE state WHEN 'running' THEN worker_id END, code, failures, stalls,"
                " finished_at IS NOT NULL AS finished FROM threadline.jobs"
            )
        )
        assert {row["job_id"]: tuple(row.values())[1:7] for row in rows} == {
            job_id: job.columns() for job_id, job in self.model.items()
        }
        assert all(row["finished"] == (row["state"] in ENDED) for row in rows)

    @invariant()
    def one_job_of_a_thread_runs(self) -> None:
        running = [job.thread for job in self.model.values() if job.state == "running"]
        assert len(running) == len(set(running))


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


def test_the_ledger_does_what_its_model_does(shared: str) -> None:
    """`--hypothesis-profile` scales it: half of the profile's examples, for each is a story of 40 calls."""
    machine = type("Machine", (LedgerMachine,), {"url": shared})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(settings().max_examples // 2, 5),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
