"""Runs a graph from the thread's head until it ends, waits, fails or is stopped; every write passes the fence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphDrained
from langgraph.types import Command, Interrupt

from threadline.contract.states import Code
from threadline.errors import InvalidJob
from threadline_worker.agents.order import configurable_of, given_in
from threadline_worker.answers import answers_of
from threadline_worker.checkpoints import (
    CheckpointsAway,
    Commit,
    Fence,
    FencedSaver,
    LeaseLost,
    raise_checkpoint_clock,
)
from threadline_worker.effects import LedgerEffects, effects_of_this_run
from threadline_worker.exhaustion import end_if_exhausted
from threadline_worker.graph_change import changed, gone_for, note_graph
from threadline_worker.memory.moves import moves_of_user
from threadline_worker.memory_store import FencedStore
from threadline_worker.origins import Loaded, Origins, Part
from threadline_worker.outcome import (
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Released,
    Retriable,
    Succeeded,
    classify,
)
from threadline_worker.resume import Decision, decide, unfinished
from threadline_worker.serialise import jsonable
from threadline_worker.shown import Shown, shown_before
from threadline_worker.tokens import TokenCounter

if TYPE_CHECKING:
    from threadline.ledger.custody import Claim
    from threadline_worker.agents.registry import Agent
    from threadline_worker.execution import Services
    from threadline_worker.publisher import Publisher
    from threadline_worker.runs import Run

__all__ = ["GraphRun"]

log = structlog.get_logger(__name__)

#: How long a cancelled step may take to stop before it is left behind; its writes are fenced.
_STOP_SECONDS = 10.0
#: Modes in which each super-step shows.
_DENSE = frozenset({"updates", "tasks", "checkpoints", "debug"})
#: How long an update may wait for the part that says whose it is.
_HOLD_SECONDS = 0.02


class GraphRun:
    """One claim's way through its graph: `decide()` once, then `run()` if there is something to do."""

    def __init__(self, services: Services, run: Run, agent: Agent) -> None:
        self._services = services
        self._run = run
        self._agent = agent
        self._origins = Origins(run.claim.agent)
        self._progress = time.monotonic()
        self._step_started = time.monotonic()
        self._decision = Decision("start")

    async def decide(self) -> int | Outcome | None:
        """R2: the outcome if there is nothing to run; else the super-step to go on behind, for readers (P2).

        None: a start, or what is streamed does not tell of every step, so that a reader could not miss one.
        """
        claim = self._run.claim
        raise_checkpoint_clock(claim.newest_at_claim)
        saver = self._saver()
        graph = self._agent.graph.copy({"checkpointer": saver})
        options = claim.options
        self._decision = found = await decide(
            graph,
            saver,
            claim.thread_id,
            claim.job_id,
            before=options["interrupt_before"],
            after=options["interrupt_after"],
            answers=await answers_of(claim, self._services.ledger, saver),
            gone=partial(gone_for, claim, self._agent, self._services),
        )
        match found.action:
            case "finished":
                return self._result(found.values)
            case "waiting":
                return Interrupted([_prompt(interrupt) for interrupt in found.interrupts])
            case "superseded":
                return Failed(Code.SUPERSEDED, "the thread went on without this job")
            case "changed":
                return await changed(claim, self._agent, self._services, found.gone)
            case _:
                # An answer to a person goes on from the checkpoint that asked.
                self._origins.anew = found.action == "start" and claim.kind != "resume"
                await note_graph(claim, self._agent, self._services, found.checkpoint_id)
                claim.row["checkpoint_id"] = found.checkpoint_id
                dense = not _DENSE.isdisjoint(options["stream_modes"])
                return found.step if found.action == "resume" and dense else None

    def look_back(self, claim: Claim) -> Callable[[], Awaitable[Shown]] | None:
        """How to read what earlier claims of the job have shown of the steps that run now (None: there were none)."""
        if claim.first:
            return None
        services, decision = self._services, self._decision
        return partial(
            shown_before,
            services.redis,
            services.keys.events(claim.job_id),
            claim.epoch,
            decision.step,
            same_tasks=not self._origins.anew,
            vault=services.ledger.vault,
        )

    async def run(self, publisher: Publisher) -> Outcome:
        """Stream the graph into the publisher until it is over."""
        store = FencedStore(
            self._services.checkpoints, self._fence(), self._services.ledger.queries, self._services.store
        )
        driver = asyncio.create_task(self._drive(publisher, store), name=f"run {self._run.job_id}")
        try:
            return await self._watch(driver)
        finally:
            store.stop()

    async def _drive(self, publisher: Publisher, store: FencedStore) -> Outcome:
        services = self._services
        ledger = services.ledger
        # This task's own context: every task and thread of the graph inherits it.
        effects = LedgerEffects(ledger.database, services.effects, ledger.queries, self._fence(), vault=ledger.vault)
        effects_of_this_run.set(effects)
        self._run.trace.attach()
        try:
            return await self._stream(publisher, store)
        except GraphDrained:
            return self._run.stopping or Released()
        except LeaseLost:
            return Lost()
        except CheckpointsAway as error:
            return services.refusals.given_back(self._run.job_id, error)
        except InvalidJob as error:
            return Failed(Code.INVALID_INPUT, str(error))
        except Exception as error:  # the boundary of the graph, which is anyone's code
            end_if_exhausted(error)
            outcome = classify(error)
            log.warning("job.failed", code=outcome.code, exc_info=True)
            return outcome

    async def _stream(self, publisher: Publisher, store: FencedStore) -> Outcome:
        claim, options = self._run.claim, self._run.claim.options
        saver, config = self._saver(), self._config()
        # What does not fit is refused here, before anything is written.
        given, context = self._input(), self._agent.context(given_in(options, "context"), config["configurable"])
        chosen = config["configurable"].get("checkpoint_id")
        if chosen is not None and await saver.aget_tuple(config) is None:
            # LangGraph would begin from nothing, and hide the whole conversation behind it.
            raise InvalidJob(f"thread {claim.thread_id} has no checkpoint {chosen}: `threadline history` lists them")
        memory = self._services.settings.memory
        await store.move(moves_of_user(memory.names, memory.routes, claim.user_id), self._services.ledger.queries)
        graph = self._agent.graph.copy({"checkpointer": saver, "store": store})
        stream = graph.astream(
            given,
            config,
            context=context,
            # Without `tasks` nobody would know whose an update is.
            stream_mode=[*{*options["stream_modes"], "tasks"}],
            subgraphs=True,
            version="v2",
            durability="sync",  # R1: with async or exit, steps and even the input can be lost
            control=self._run.control,
            interrupt_before=options["interrupt_before"] or None,
            interrupt_after=options["interrupt_after"] or None,
        )
        async with aclosing(stream) as parts:  # type: ignore[type-var]
            try:
                async for part in parts:
                    self._on_part(publisher, part)
                    await publisher.room()
            finally:
                self._publish(publisher, self._origins.rest())
        left, interrupts, values = await unfinished(graph, claim.thread_id)
        return Interrupted([_prompt(interrupt) for interrupt in interrupts]) if left else self._result(values)

    async def _watch(self, driver: asyncio.Task[Outcome]) -> Outcome:
        """Wait for the run, and for every reason to stop it."""
        stopped = asyncio.create_task(self._run.stopped.wait())
        try:
            while True:
                remaining, limit = self._limits()
                done, _ = await asyncio.wait(
                    {driver, stopped}, timeout=max(min(remaining, limit), 0.0), return_when=asyncio.FIRST_COMPLETED
                )
                if driver in done:
                    return _end(driver)
                if stopped in done:
                    await _stop(driver)
                    return self._run.stopping or Released()
                remaining, limit = self._limits()
                if remaining <= 0:
                    await _stop(driver)
                    return Failed(Code.TIMEOUT, f"the job ran for longer than its {self._timeout:g} seconds")
                if limit <= 0:
                    await _stop(driver)
                    seconds = self._services.settings.step_timeout
                    return Retriable(Code.STEP_TIMEOUT, f"a step made no progress for {seconds:g} seconds")
        finally:
            stopped.cancel()
            if not driver.done():
                driver.cancel()

    @property
    def _timeout(self) -> float:
        return self._run.claim.timeout_seconds or self._services.settings.job_timeout

    def _limits(self) -> tuple[float, float]:
        """Seconds left of the job's running time (V5: summed over epochs), and of the step's."""
        now = time.monotonic()
        ran = self._run.claim.running_seconds + (now - self._run.began)
        return self._timeout - ran, self._services.settings.step_timeout - (now - self._progress)

    def _on_part(self, publisher: Publisher, part: Any) -> None:
        self._progress = time.monotonic()
        kind, ns, data = str(part["type"]), tuple(part["ns"]), part["data"]
        if part.get("interrupts") and isinstance(data, dict):
            # Where LangGraph itself puts what a person is asked, but for this version of its stream.
            data = {**data, "__interrupt__": part["interrupts"]}
        self._publish(publisher, self._origins.take(kind, ns, data))
        if self._origins.holds:
            # What explains the part comes right behind it, or not at all.
            asyncio.get_running_loop().call_later(_HOLD_SECONDS, self._publish_rest, publisher)

    def _publish_rest(self, publisher: Publisher) -> None:
        self._publish(publisher, self._origins.rest())

    def _publish(self, publisher: Publisher, parts: Iterable[Part]) -> None:
        for kind, ns, data, origin in parts:
            if kind in self._run.claim.options["stream_modes"]:
                publisher.offer(kind, ns, data, origin)

    def _on_commit(self, commit: Commit) -> None:
        now = time.monotonic()
        metrics = self._services.metrics
        metrics.checkpoint_write.observe(commit.seconds)
        self._progress = now
        self._run.progressed = True
        self._services.refusals.wrote(self._run.job_id)
        self._origins.committed(commit.namespace, commit.step)
        self._run.trace.committed(commit.namespace, commit.step)
        if commit.namespace == "" and commit.step >= 0:
            metrics.supersteps.labels(agent=self._run.claim.agent).inc()
            metrics.superstep_seconds.labels(agent=self._run.claim.agent).observe(now - self._step_started)
        self._step_started = now

    def _on_load(self, namespace: str, found: CheckpointTuple) -> None:
        self._origins.loaded(Loaded.of(namespace, int(found.metadata.get("step", -1)), found.pending_writes))

    def _fence(self) -> Fence:
        claim = self._run.claim
        return Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)

    def _saver(self) -> FencedSaver:
        return FencedSaver(
            self._services.checkpoints,
            self._fence(),
            self._services.ledger.queries,
            on_commit=self._on_commit,
            on_load=self._on_load,
            serde=self._agent.serde,
            vault=self._services.ledger.vault,
        )

    def _input(self) -> Any:
        if self._decision.action == "resume":
            return None
        given = self._run.claim.input
        if self._run.claim.kind == "resume":
            # Without answers it goes on behind a breakpoint.
            return Command(resume=self._decision.answers) if self._decision.answers else None
        return self._agent.input(given, self._run.job_id, new_thread=self._decision.checkpoint_id is None)

    def _config(self) -> Any:
        claim = self._run.claim
        configurable = configurable_of(
            given_in(claim.options, "configurable"),
            thread_id=claim.thread_id,
            user_id=claim.user_id,
            job_id=claim.job_id,
        )
        # Inherited by a resume job, it would answer a question of long ago.
        if claim.kind == "input" and claim.options.get("checkpoint_id") and self._decision.action == "start":
            configurable["checkpoint_id"] = claim.options["checkpoint_id"]
        return {
            "configurable": configurable,
            "metadata": {"job_id": claim.job_id},
            "callbacks": [
                self._origins.steps,
                TokenCounter(self._services.metrics, claim.agent),
                *self._run.trace.callbacks,
            ],
            "run_id": _uuid(claim.job_id),
            "recursion_limit": self._services.settings.recursion_limit,
        }

    def _result(self, values: Any) -> Succeeded:
        return Succeeded(self._agent.result(values))


def _prompt(interrupt: Interrupt) -> dict[str, Any]:
    schema = getattr(interrupt, "response_schema", None)
    asked = {"id": interrupt.id, "value": jsonable(interrupt.value)}
    return asked if schema is None else {**asked, "response_schema": jsonable(schema)}


def _uuid(job_id: str) -> Any:
    """The job's id as LangSmith's run id, where it is one (adopted jobs may carry any id)."""
    try:
        return UUID(job_id)
    except ValueError:
        return None


def _end(driver: asyncio.Task[Outcome]) -> Outcome:
    if driver.cancelled():
        # Not by us: some node raised CancelledError. Passed on, it would end the run without a word to the ledger.
        return Retriable(Code.ERROR, "the graph cancelled itself (CancelledError)")
    return driver.result()


async def _stop(driver: asyncio.Task[Outcome]) -> None:
    """Cancel and wait; code that swallows the cancellation is left behind, fenced."""
    driver.cancel()
    _done, pending = await asyncio.wait({driver}, timeout=_STOP_SECONDS)
    if pending:
        log.warning("job.abandoned", seconds=_STOP_SECONDS)
