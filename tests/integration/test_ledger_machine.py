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
    consumes,
    invariant,
    multiple,
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
MOSTLY_ENQUEUE = ["enqueue", "enqueue", "reject", "interrupt"]


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
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.context = bench_on(emptied(self.url), workers=WORKERS, size=1)
        self.bench: Bench = self.runner.run(self.context.__aenter__())
        self.model: dict[str, Model] = {}
        self.alive = set(WORKERS)
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

    @rule(
        target=jobs,
        thread=st.sampled_from("abc"),
        on_busy=st.sampled_from(["enqueue", "enqueue", "reject", "interrupt"]),
    )
    def enqueue(self, thread: str, on_busy: str) -> Any:
        before = [job for _, job in self.thread(thread) if job.open]
        call = self.bench.enqueue(thread_id=thread, on_busy=on_busy)
        if on_busy == "reject" and before:
            with pytest.raises(ThreadBusy):
                self.do(call)
            return multiple()
        stored = self.do(call)
        if on_busy == "interrupt":
            self._replace(before)
        job = self.model[stored.job_id] = Model(next(self.ids), thread)
        job.dispatched = self.head(job)
        assert (stored.head, stored.created) == (job.dispatched, True)
        return stored.job_id

    def _replace(self, before: list[Model]) -> None:
        for job in before:
            job.cancel = job.cancel or "replaced"
            if job.state != "running":
                job.to("cancelled", "replaced")

    @rule(target=claims, job_id=jobs, worker=st.sampled_from(WORKERS))
    def claim(self, job_id: str, worker: str) -> Any:
        job = self.model[job_id]
        claim = self.do(self.bench.ledger.claim(job_id, worker))
        if not (job.state == "queued" and job.due and worker in self.alive and self.head(job)):
            assert claim is None
            return multiple()
        if job.overdue and not job.started:
            job.to("failed", "expired")
            assert claim["state"] == "failed"
            return multiple()
        job.to("running")
        job.worker, job.started, job.progressed = worker, True, False
        assert isinstance(claim, Claim)
        return claim

    def _ours(self, claim: Claim) -> Model | None:
        job = self.model[claim.job_id]
        return job if (job.state, job.epoch) == ("running", claim.epoch) else None

    @rule(claim=consumes(claims), state=st.sampled_from(sorted(ENDED)))
    def finish(self, claim: Claim, state: str) -> None:
        job = self._ours(claim)
        row = self.do(self.bench.ledger.finish(claim, State(state), code="own"))
        assert (row is not None) == (job is not None)
        if job:
            job.to(state, "own")

    @rule(claim=claims, failure=st.booleans(), wait=st.booleans())
    def release(self, claim: Claim, failure: bool, wait: bool) -> None:
        job = self._ours(claim)
        call = self.bench.ledger.release(claim, "why", failure=failure, delay=3600.0 if wait else 0.0, limit=FAILURES)
        assert (self.do(call) is not None) == (job is not None)
        if job:
            job.failures += failure
            job.due = not wait
            job.give_back("why", over=failure and job.failures >= FAILURES)

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        rows = self.do(self.bench.rescue(worker, limit=STALLS))
        self.alive.discard(worker)
        lost = {job_id: job for job_id, job in self.model.items() if job.worker == worker}
        assert {row["job_id"] for row in rows} == set(lost)
        for job in lost.values():
            job.stalls = 0 if job.progressed else job.stalls + 1
            job.due = True
            job.give_back("dead_worker", over=job.stalls >= STALLS)

    @rule(worker=st.sampled_from(WORKERS))
    def live(self, worker: str) -> None:
        self.do(self.bench.worker(worker))
        self.alive.add(worker)

    @rule(thread=st.sampled_from("abc"))
    def checkpoint(self, thread: str) -> None:
        query = (
            "INSERT INTO threadline.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)"
            " VALUES (%s, '', %s, '{}', '{}')"
        )
        self.do(self.bench.sql(query, thread, f"{next(self.ids):09}"))
        for _, job in self.thread(thread):
            job.progressed = True

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        job = self.model[job_id]
        status = self.do(self.bench.ledger.cancel(job_id))
        if job.state in {"queued", "interrupted"}:
            job.to("cancelled", "requested")
        elif job.state == "running":
            job.cancel = job.cancel or "requested"
        assert status.state == job.state

    @rule(job_id=jobs)
    def retry(self, job_id: str) -> None:
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

    @rule(job_id=jobs, due=st.booleans())
    def clock(self, job_id: str, due: bool) -> None:
        """The time of a queued job comes, or is put off (as `run_at` would have)."""
        job = self.model[job_id]
        if job.state == "queued":
            self.do(self.bench.set(job_id, f"run_at = now() + interval '{'-1' if due else '3600'} seconds'"))
            job.due = due

    @rule(job_id=jobs)
    def grow_old(self, job_id: str) -> None:
        job = self.model[job_id]
        if job.state == "queued":
            self.do(self.bench.set(job_id, "expires_at = now() - interval '1 second'"))
            job.overdue = True

    @rule()
    def expire(self) -> None:
        rows = self.do(self.bench.ledger.expire())
        late = {
            job_id: job
            for job_id, job in self.model.items()
            if job.state == "queued" and job.overdue and not job.started
        }
        assert {row["job_id"] for row in rows} == set(late)
        for job in late.values():
            job.to("failed", "expired")

    @rule()
    def dispatch(self) -> None:
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
    """`--hypothesis-profile` scales it: half of the profile's examples, for each is a story of 30 calls."""
    machine = type("Machine", (LedgerMachine,), {"url": shared})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(settings().max_examples // 2, 5),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
