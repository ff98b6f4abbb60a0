"""One job from claim to hand-over: decide, run, settle, announce, hand on; a lost lease writes nothing."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from threadline import dispatch
from threadline.contract.arq_message import Message, message_id
from threadline.contract.keys import Keys
from threadline.contract.states import Code, State
from threadline.errors import BackendUnavailable, CannotDecrypt, InvalidJob
from threadline.ledger.custody import Claim, Custody, Due
from threadline.ledger.database import Database
from threadline.ledger.transition_event import event_of, queued_event
from threadline.log.append import EventLog
from threadline.redis_client import REDIS_ERRORS, reason
from threadline_worker.agents.errors import AgentConfigError, FactoryError, UnknownAgentError
from threadline_worker.agents.opening import Opening
from threadline_worker.agents.registry import Agent, Agents
from threadline_worker.announce import Announcer
from threadline_worker.checkpoints import CheckpointsAway
from threadline_worker.exhaustion import end_if_exhausted
from threadline_worker.graph_run import GraphRun
from threadline_worker.internal.operate import operate
from threadline_worker.liveness import Liveness
from threadline_worker.memory_store import StoreConfig
from threadline_worker.outcome import (
    FAILURE_LIMIT,
    Cancelled,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Released,
    Retriable,
    Succeeded,
    backoff,
    classify,
    describe,
    unreadable,
)
from threadline_worker.publisher import Publisher
from threadline_worker.refusals import Refusals
from threadline_worker.run_order import order_of
from threadline_worker.runs import Run
from threadline_worker.settings import WorkerSettings
from threadline_worker.telemetry.job_fields import job_fields
from threadline_worker.telemetry.line_budget import LineBudget
from threadline_worker.telemetry.metrics import Metrics
from threadline_worker.telemetry.traces import NO_TRACES, Traces
from threadline_worker.webhooks.courier import Courier

__all__ = ["Execution", "Services"]

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 5.0
#: Above it Lua's numbers have gaps.
_HIGHEST_EPOCH = 2**53 - 2


@dataclass(frozen=True)
class Services:
    """What every run needs; made in main.py and handed down."""

    settings: WorkerSettings
    keys: Keys
    ledger: Custody
    checkpoints: AsyncConnectionPool[Any]
    #: For what tools write in one transaction with the record of it (F2); opened when the first one does.
    effects: Database
    redis: Any
    events: EventLog
    announcer: Announcer
    agents: Agents
    liveness: Liveness
    metrics: Metrics
    courier: Courier
    store: StoreConfig
    #: Shared with what says whether this worker may claim.
    refusals: Refusals = field(default_factory=Refusals)
    traces: Traces = NO_TRACES


class Execution:
    """Runs one claim to its end."""

    def __init__(self, services: Services, run: Run) -> None:
        self._services = services
        self._run = run

    async def execute(self) -> None:
        """Never raises for what the job does; the outcome is in the ledger, or the lease was lost."""
        claim = self._run.claim
        # Not taken back: this task is the job's own, and what is logged of its end is about the job, too.
        structlog.contextvars.bind_contextvars(**job_fields(claim._asdict()))
        with LineBudget(self._services.settings.log_lines).of_this_job():
            self._note_claim(claim)
            self._run.trace = self._services.traces.run(claim)
            outcome = await self._outcome()
            if isinstance(outcome, Released) and outcome.code == Code.TRANSIENT:
                await self._check_connections()
            row = await self._settle(outcome)
            self._run.trace.ended(self._run.claim, row)
            if row is not None:
                if "webhook_url" in claim.options:  # the ledger has written the report: this is only the quick way
                    self._services.courier.soon.set()
                await self._services.announcer.announce(row)
                await self._hand_on(claim.thread_id)

    def _note_claim(self, claim: Claim) -> None:
        metrics = self._services.metrics
        if claim.kind == "internal":
            log.info("internal.claimed", operation=claim.options["operation"])
            return
        metrics.job_claims.labels(agent=claim.agent, kind="start" if claim.first else "resume").inc()
        if claim.first:
            metrics.job_wait.labels(agent=claim.agent).observe(max(claim.waited_seconds, 0.0))
        if claim.pickup_seconds is not None:
            metrics.pickup.observe(max(claim.pickup_seconds, 0.0))
        graph = self._services.agents.fingerprint(claim.agent)
        log.info("job.claimed", pickup_seconds=claim.pickup_seconds, fingerprint=graph)

    async def _outcome(self) -> Outcome:
        try:
            self._run.claim = self._services.ledger.unsealed(self._run.claim)
            return await self._with_opened()
        except (AgentConfigError, InvalidJob, UnknownAgentError) as error:
            return _no_agent(error)
        except CannotDecrypt as error:
            log.warning("job.failed", code=Code.UNREADABLE, error=str(error))
            return unreadable(error)
        except (BackendUnavailable, CheckpointsAway) as error:
            # The decision could not be made: nothing has run, so nothing is charged.
            return self._services.refusals.given_back(self._run.job_id, error)
        except Exception as error:  # the boundary of a job: whatever it is, the worker and its neighbours go on
            end_if_exhausted(error)
            log.exception("job.failed")
            return Failed(Code.ERROR, describe(error))

    async def _with_opened(self) -> Outcome:
        claim = self._run.claim
        with order_of(self._services, claim) as order:
            async with self._services.agents.opening(claim.agent, order) as opening:
                agent = await self._loaded(opening)
                return await self._with_agent(agent) if isinstance(agent, Agent) else agent

    async def _loaded(self, opening: Opening) -> Agent | Outcome:
        """The agent, or why there is none in time: loading is anyone's code, and must hold neither slot nor cancel."""
        limit = self._services.settings.step_timeout
        loading = opening.ready
        stopped = asyncio.create_task(self._run.stopped.wait())
        try:
            await _either(loading, stopped, limit)
            if loading.done():
                return loading.result()
            if stopped.done():
                return self._run.stopping or Released()
            return Retriable(Code.STEP_TIMEOUT, f"the agent was not loaded within {limit:g} seconds")
        finally:
            stopped.cancel()

    async def _with_agent(self, agent: Agent) -> Outcome:
        if self._run.claim.kind == "internal":
            return await operate(self._services, self._run, agent)
        return await self._with_graph(agent)

    async def _with_graph(self, agent: Agent) -> Outcome:
        services, claim = self._services, self._run.claim
        graph_run = GraphRun(services, self._run, agent)
        step = await graph_run.decide()
        if step is not None and not isinstance(step, int):
            return step
        lifted = await self._announce_claim(claim, step)
        if lifted is None:
            return Lost()
        self._run.claim = lifted.claim
        self._run.trace.lifted(lifted.claim)
        async with Publisher(
            services.events,
            claim.job_id,
            claim.thread_id,
            lifted.claim.epoch,
            metrics=services.metrics,
            may_publish=services.liveness.fresh,
            on_stale=self._run.lose,
            look_back=graph_run.look_back(lifted.claim),
        ) as publisher:
            if lifted.unsent is not None:
                publisher.first(*lifted.unsent)
            outcome = await graph_run.run(publisher)
            if not isinstance(outcome, Lost):
                await publisher.flush()
            # What has not arrived by now never will: the next transition's event says so (P2).
            self._run.log_top = publisher.top
            return outcome

    async def _announce_claim(self, claim: Claim, step: int | None) -> _Lifted | None:
        """Publish `started` or `resumed`. P3: where the log is ahead of the ledger, the epoch is lifted above it."""
        for _attempt in range(3):
            event = event_of(claim.row, step=step)
            try:
                async with asyncio.timeout(1.0):
                    answer = await self._services.announcer.append(claim.row, step=step)
            except REDIS_ERRORS:
                # The run does not wait for Redis; the publisher sends it when Redis is back.
                events = self._services.events
                queued = queued_event(claim.job_id, claim.thread_id, claim.agent)
                return _Lifted(claim, (events.encode(event), event.type, events.encode(queued)))
            if not answer.stale or answer.before is None:
                return _Lifted(claim, None)
            if answer.before.epoch >= _HIGHEST_EPOCH:
                # No ledger was ever there: somebody else wrote into the log, and it cannot be lifted above.
                await self._services.redis.delete(self._services.keys.events(claim.job_id))
                continue
            lifted = await self._services.ledger.lift_epoch(claim, answer.before.epoch)
            if lifted is None:
                return None
            claim = lifted
        return _Lifted(claim, None)

    async def _check_connections(self) -> None:
        """After an outage the pool would hand out its dead connections one by one, each to another run."""
        # Not cancelled when it takes long: the pool would never get back what it was looking at.
        await asyncio.wait({asyncio.create_task(self._services.checkpoints.check())}, timeout=_CHECK_SECONDS)

    async def _settle(self, outcome: Outcome) -> Mapping[str, Any] | None:
        """Write the outcome. None: the lease was lost, and nothing was written."""
        claim, started = self._run.claim, time.monotonic()
        delay = 0.1
        while not isinstance(outcome, Lost):
            try:
                row = await self._write(claim, outcome)
            except BackendUnavailable as error:
                # A COMMIT whose answer is lost may have happened (findings.md): look before repeating.
                log.warning("job.failed", error=reason(error), waiting=round(time.monotonic() - started, 1))
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
                continue
            except (psycopg.Error, ValueError, TypeError) as error:
                # Not storable: left as it is, the job would be given back and run again for ever.
                if isinstance(outcome, Failed):
                    raise
                log.exception("job.failed")
                outcome = Failed(Code.ERROR, f"the outcome cannot be stored: {type(error).__name__}")
                continue
            row = row or await self._written_before(claim)
            if row is None:
                break
            self._note_end(row)
            return row
        log.warning("lease.lost")
        self._services.metrics.lease_lost.inc()
        return None

    async def _write(  # noqa: PLR0911 - a table of outcomes
        self, claim: Claim, outcome: Outcome
    ) -> Mapping[str, Any] | None:
        ledger, top = self._services.ledger, self._run.log_top
        match outcome:
            case Succeeded(result):
                return await ledger.finish(claim, State.SUCCEEDED, result=result, log_top=top)
            case Interrupted(prompts):
                return await ledger.finish(claim, State.INTERRUPTED, interrupts=prompts, log_top=top)
            case Failed(code, message):
                return await ledger.finish(claim, State.FAILED, code=code, message=message, log_top=top)
            case Cancelled(code):
                return await ledger.finish(claim, State.CANCELLED, code=code, log_top=top)
            case Retriable(code, message, retry_after):
                delay = backoff(claim.failures, retry_after)
                return await ledger.release(
                    claim, code, message=message, failure=True, delay=delay, limit=FAILURE_LIMIT, log_top=top
                )
            case Released(code, delay):
                return await ledger.release(claim, code, delay=delay, log_top=top)
            case _:
                return None

    async def _written_before(self, claim: Claim) -> Mapping[str, Any] | None:
        """No row was changed: an earlier try of ours may have committed although its answer was lost."""
        row = await self._services.ledger.transition(claim.job_id)
        ours = (
            row is not None
            and row["epoch"] == claim.epoch + 1
            and row["previous_worker"] == claim.worker_id
            and row["transition"] in {"finish", "release"}
        )
        return row if ours else None

    def _note_end(self, row: Mapping[str, Any]) -> None:
        metrics, claim = self._services.metrics, self._run.claim
        if row["state"] == State.QUEUED:
            log.info("job.released", code=row["code"], message=row["message"])
            return
        code = row["code"] or ""
        if claim.kind == "internal":
            operation = claim.options["operation"]
            metrics.internal_jobs.labels(operation=operation, state=row["state"]).inc()
            log.info("internal.finished", operation=operation, state=row["state"], code=code or None)
            return
        metrics.jobs_finished.labels(agent=claim.agent, state=row["state"], code=code).inc()
        seconds = row.get("running_seconds")
        if seconds is not None:
            metrics.job_duration.labels(agent=claim.agent, state=row["state"]).observe(seconds)
        log.info("job.finished", state=row["state"], code=code or None, message=row["message"], seconds=seconds)

    async def _hand_on(self, thread_id: str) -> None:
        """The next job of the thread, or this one again: wake somebody at once instead of at the next sweep."""
        due: list[Due] = []
        try:
            if await self._services.ledger.restore(thread_id) is not None:
                log.info("thread.restored")
            due = await self._services.ledger.dispatch_due(thread_id=thread_id)
            await send_due(self._services.redis, self._services.keys, due)
        except (*REDIS_ERRORS, BackendUnavailable) as error:
            log.warning("dispatch.failed", error=reason(error))
            with suppress(BackendUnavailable):
                for job in due:
                    await self._services.ledger.undispatch(job.job_id, job.n)


@dataclass(frozen=True)
class _Lifted:
    """The claim after its announcement; the event that could not be sent yet, its type, and what comes before it."""

    claim: Claim
    unsent: tuple[bytes, str, bytes] | None


async def _either(one: asyncio.Future[Any], other: asyncio.Future[Any], limit: float) -> None:
    await asyncio.wait({one, other}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)


def _no_agent(error: Exception) -> Outcome:
    """Why there was no graph to run."""
    if isinstance(error, UnknownAgentError):
        return Failed(Code.UNKNOWN_AGENT, str(error))
    if isinstance(error, InvalidJob):
        return Failed(Code.INVALID_INPUT, str(error))
    if isinstance(error, FactoryError) and error.__cause__ is not None:
        passing = classify(error.__cause__)
        if isinstance(passing, Retriable):
            return passing
    return Failed(Code.AGENT_UNAVAILABLE, str(error))


async def send_due(redis: Any, keys: Keys, due: list[Due]) -> None:
    """Put wake-ups for these dispatches into their queues. Raises redis' errors; the sweep finds what was lost."""
    enqueued = int(time.time() * 1000)
    messages: defaultdict[str, list[Message]] = defaultdict(list)
    for job in due:
        messages[job.queue].append(Message(message_id(job.job_id, job.epoch, job.n), [job.job_id], enqueued))
    for queue, wake_ups in messages.items():
        await dispatch.send(redis, keys, wake_ups, queue=queue)
