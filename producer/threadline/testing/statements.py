"""The statements of ledger/queries that a client runs, in Python; held by tests/integration/test_clients_alike.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString

from threadline.contract.codec import loads
from threadline.contract.states import State
from threadline.ledger.database import Database, Row
from threadline.ledger.ledger import Ledger
from threadline.ledger.sql import Queries
from threadline.testing.stage import Stage
from threadline.testing.stored import StoredJob, database_time

__all__ = ["MemoryLedger"]


class _Names(Queries):
    """A query is its own name."""

    def __init__(self) -> None:
        super().__init__("memory")

    def __getitem__(self, name: str) -> LiteralString:
        return name


class MemoryLedger(Ledger):
    """The real Ledger over statements in memory. A caller's connection is recorded elsewhere and left alone."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(_Statements(stage), _Names())

    async def _enqueue_within(self, connection: object, params: dict[str, Any]) -> Row | None:  # noqa: ARG002
        return await self.database.row(self.queries["enqueue"], params)


class _Statements(Database):
    """What stands for Postgres: a method for each statement, looked up by the query's name."""

    def __init__(self, stage: Stage) -> None:  # no pool, so not super().__init__
        self._stage = stage

    async def close(self) -> None:
        """Nothing to close: a test may look at the client afterwards."""

    async def rows(self, query: LiteralString, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Run the statement of this name."""
        run: Callable[[Mapping[str, Any]], list[Row]] | None = getattr(self, f"_{query}", None)
        if run is None:
            raise NotImplementedError(f"threadline.testing does not play {query!r}: use real servers for it")
        answer = run(params or {})
        self._stage.advance()
        return answer

    def _enqueue(self, params: Mapping[str, Any]) -> list[Row]:
        """`enqueue_job` of schema/0001_ledger.sql."""
        stage, thread_id, user_id = self._stage, params["thread_id"], params["user_id"]
        if (known := self._known(user_id, params)) is not None:
            return [known]
        if (refused := self._agent_check(params["agent"], text=params["text_input"])) is not None:
            return [{"outcome": refused}]
        if stage.owners.setdefault(thread_id, user_id) != user_id:
            return [{"outcome": "owned_by_another"}]
        holding = [job for job in stage.of_thread(thread_id) if job.open]
        if params["on_busy"] == "reject" and holding:
            return [{"outcome": "busy", "job_id": holding[0].job_id, "state": str(holding[0].state)}]
        job = self._new(params, user_id=user_id, agent=params["agent"], input=loads(params["input"]))
        job.options, job.run_at = loads(params["options"]), params["run_at"] or job.created_at
        if params["on_busy"] in {"interrupt", "rollback"}:
            for other in holding:
                self._stop(other, "replaced")
        return [self._created(job)]

    def _resume(self, params: Mapping[str, Any]) -> list[Row]:
        """`resume_job` of schema/0004_resume.sql."""
        stage, thread_id = self._stage, params["thread_id"]
        owner = stage.owners.get(thread_id)
        base = {"thread_id": thread_id, "user_id": owner, "interrupts": None}
        if owner is None or params["user_id"] not in {None, owner}:
            return [{**base, "outcome": "unknown_thread" if owner is None else "owned_by_another"}]
        if (known := self._known(owner, params)) is not None:
            return [base | known]
        asking = next((job for job in stage.of_thread(thread_id) if job.waiting), None)
        if asking is None:
            return [{**base, "outcome": "not_waiting"}]
        if asking.job_id != params["asking"]:
            return [{**base, "outcome": "asks", "job_id": asking.job_id, "interrupts": asking.interrupts or []}]
        job = self._new(params, user_id=owner, agent=asking.agent, input=loads(params["answers"]))
        job.kind, job.resumes, job.turn, job.options = "resume", asking.job_id, asking.turn, asking.options
        asking.answered_by = job.job_id
        return [{**base, **self._created(job), "agent": asking.agent}]

    def _status(self, params: Mapping[str, Any]) -> list[Row]:
        job = self._stage.jobs.get(params["job_id"])
        return [] if job is None else [job.row()]

    _transition = _status

    def _jobs(self, params: Mapping[str, Any]) -> list[Row]:
        found = [
            job.row()
            for job in reversed(self._stage.jobs.values())
            if all(
                params[name] in {None, str(getattr(job, name))} for name in ("state", "thread_id", "user_id", "queue")
            )
        ]
        return found[: params["limit"]]

    def _inbox(self, params: Mapping[str, Any]) -> list[Row]:
        columns = ("job_id", "thread_id", "user_id", "agent", "interrupts", "metadata", "since", "expires_at")
        waiting = sorted(
            (job for job in self._stage.jobs.values() if job.waiting),
            key=lambda job: (job.finished_at or datetime.max.replace(tzinfo=UTC), job.seq),
        )
        found = [
            {name: job.row()[name] for name in columns}
            for job in waiting
            if all(params[name] in {None, getattr(job, name)} for name in ("user_id", "thread_id"))
        ]
        return found[: params["limit"]]

    def _cancel(self, params: Mapping[str, Any]) -> list[Row]:
        """`cancel_job`: what is queued or waits ends at once, what runs is asked to stop."""
        job = self._stage.jobs.get(params["job_id"])
        if job is not None and job.open:
            self._stop(job, "requested")
        return []

    def _retry(self, params: Mapping[str, Any]) -> list[Row]:
        """`retry_job` of schema/0004_resume.sql."""
        job = self._stage.jobs[params["job_id"]]
        asking = self._stage.jobs.get(job.resumes or "")
        if job.state not in {State.FAILED, State.CANCELLED}:
            return [{"outcome": "not_ended"}]
        later = any(
            other.place > job.place and other.started_at is not None for other in self._stage.of_thread(job.thread_id)
        )
        given_up = asking is not None and (
            asking.state != State.INTERRUPTED or asking.answered_by not in {None, job.job_id}
        )
        if later or given_up:
            return [{"outcome": "moved_on"}]
        if asking is not None:
            asking.answered_by = job.job_id
        cleared: dict[str, Any] = dict.fromkeys(("code", "message", "worker_id", "finished_at", "cancel"))
        self._stage.change(job, State.QUEUED, "retry", failures=0, stalls=0, run_at=database_time(), **cleared)
        return [{"outcome": "retried"}]

    def _webhook_again(self, params: Mapping[str, Any]) -> list[Row]:
        job = self._stage.jobs[params["job_id"]]
        return [{"epoch": job.epoch}] if job.options.get("webhook_url") and job.finished_at is not None else []

    def _internal(self, params: Mapping[str, Any]) -> list[Row]:
        """There are no graphs here whose state could be read or changed."""
        name = params["operation"]
        raise NotImplementedError(
            f"threadline.testing runs no graphs, so it does not play {name}(): replace it on the client,"
            f" monkeypatch.setattr(client, {name!r}, …), or use real servers"
        )

    def _agent_names(self, _params: Mapping[str, Any]) -> list[Row]:
        return [{"name": name} for name in sorted(self._stage.agents or ())]

    def _known(self, user_id: str, params: Mapping[str, Any]) -> Row | None:
        """L2: the job that the key, or the id, already names."""
        for job in self._stage.jobs.values():
            same_key = job.idempotency_key is not None and job.idempotency_key == params["idempotency_key"]
            if (same_key and job.user_id == user_id) or job.job_id == params["job_id"]:
                same = job.user_id == user_id and job.fingerprint == params["fingerprint"]
                return {**job.row(), "outcome": "existing" if same else "different", "dispatch_n": 0, "head": False}
        return None

    def _agent_check(self, agent: str, *, text: bool) -> str | None:
        agents = self._stage.agents
        if agents is None or agents.get(agent, False):
            return None
        if agent not in agents:
            return "unknown_agent"
        return "no_text_input" if text else None

    def _new(self, params: Mapping[str, Any], **columns: Any) -> StoredJob:
        seq = self._stage.next_seq()
        return StoredJob(
            job_id=params["job_id"],
            thread_id=params["thread_id"],
            seq=seq,
            turn=seq,
            fingerprint=params["fingerprint"],
            idempotency_key=params["idempotency_key"],
            metadata=loads(params["metadata"]),
            **columns,
        )

    def _created(self, job: StoredJob) -> Row:
        head = self._stage.add(job)
        return {**job.row(), "outcome": "created", "dispatch_n": 1, "head": head}

    def _stop(self, job: StoredJob, code: str) -> None:
        if job.state is State.RUNNING:
            self._stage.request_cancel(job, code)
            return
        self._stage.change(job, State.CANCELLED, "cancel", code=code, worker_id=None)
        asking = self._stage.jobs.get(job.resumes or "")
        if asking is not None and code == "requested" and job.started_at is None:
            asking.answered_by = None  # an answer that was taken back leaves its question open
