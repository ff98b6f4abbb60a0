"""Builds a worker from its settings and runs it until it has drained; a soft stop gives every job back uncharged."""

from __future__ import annotations

import asyncio
import contextvars
import os
import secrets
import socket
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import structlog
from arq.connections import ArqRedis
from prometheus_client import CollectorRegistry

from threadline import __version__
from threadline.contract.codec import dumps
from threadline.environment import unknown_variables
from threadline.errors import BackendUnavailable
from threadline.ledger.custody import Custody
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.log.append import EventLog
from threadline.redis_client import REDIS_ERRORS, connect_redis, reason
from threadline_worker.adoption import Adoption
from threadline_worker.agents.registry import Agents
from threadline_worker.announce import Announcer
from threadline_worker.backends import wait_for_servers
from threadline_worker.checkpoint_pool import check_schema, checkpoint_database
from threadline_worker.consumer import Consumer
from threadline_worker.execution import Services
from threadline_worker.health import Health
from threadline_worker.intake import Intake
from threadline_worker.liveness import Liveness, worker_lock_key
from threadline_worker.memory.index import open_store
from threadline_worker.memory.keeper import keeper_of
from threadline_worker.reconcile import Reconciler
from threadline_worker.rescue import Rescuer
from threadline_worker.retention.schedule import schedule_of
from threadline_worker.runs import Runs
from threadline_worker.settings import WorkerSettings
from threadline_worker.sweep import Sweep
from threadline_worker.telemetry.exposure import expose
from threadline_worker.telemetry.logs import name_process
from threadline_worker.telemetry.metrics import Metrics
from threadline_worker.telemetry.trace_langsmith import flush_langsmith
from threadline_worker.telemetry.traces import traces_of
from threadline_worker.webhooks.courier import SLOTS, Courier
from threadline_worker.webhooks.outbox import Outbox
from threadline_worker.webhooks.sender import Sender

__all__ = ["WorkerProcess", "new_worker_id"]

log = structlog.get_logger(__name__)

#: After the cut: a step has 10 s to stop, and the ledger some more to answer.
_LAST_WORDS_SECONDS = 20.0
#: Leaving the list of workers is a courtesy.
_GOODBYE_SECONDS = 3.0
#: At most: who collects traces may be away.
_LAST_TRACES_SECONDS = 3.0


def new_worker_id() -> str:
    """`host-pid-random`: readable, and never that of an earlier process."""
    # Of a pod's name the end tells it from its siblings. With "threadline:" it fits the 63 bytes of application_name.
    return f"{socket.gethostname()[-28:].lstrip('-.')}-{os.getpid()}-{secrets.token_hex(6)}"


class WorkerProcess:
    """One worker. `run()` returns after a drain; `drain()` is the first signal, `stop_now()` the second.

    With `burst` it drains by itself once nothing is queued or running.
    """

    def __init__(self, settings: WorkerSettings, *, burst: bool = False) -> None:
        self._settings = settings
        self._burst = burst
        self._keys = settings.client.keys
        self.worker_id = new_worker_id()
        self._draining = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._drain_began: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs = Runs(settings.concurrency)
        self._queries = Queries(self._keys.schema, self._keys.checkpoints)
        self._agents = Agents(settings.agents, settings.env)
        self._metrics = Metrics(CollectorRegistry(), self._agents.names)

    def drain(self) -> None:
        """Take no new jobs, stop each run at its next super-step, give all back."""
        self._draining.set()

    def stop_now(self) -> None:
        """Cut what is running; it is given back without a charge all the same."""
        self._draining.set()
        self._stop_now.set()

    async def run(self) -> None:
        """Raises BackendUnavailable if a server is not there at the start or the port is taken, NotMigrated."""
        name_process(worker_id=self.worker_id)
        for warning in unknown_variables(self._settings.env):
            log.warning("worker.configuration", problem=warning)
        log.info("worker.starting", version=__version__)
        async with AsyncExitStack() as stack:
            self._traces = traces_of(self._settings.env, self.worker_id)
            stack.push_async_callback(self._last_traces)
            services = await self._connect(stack)
            await self._register(services.ledger)
            self._agents.on_learnt = lambda: self._tell_agents(services.ledger)
            stack.push_async_callback(self._unregister, services.ledger)
            await self._work(services, stack)
        log.info("worker.stopped")

    async def _connect(self, stack: AsyncExitStack) -> Services:
        """Connections, in the order in which they are closed from the last to the first."""
        settings, keys = self._settings, self._keys
        name = f"threadline:{self.worker_id}"
        redis: Any = connect_redis(settings.redis_url, kind=ArqRedis)
        stack.push_async_callback(redis.aclose)
        database = await stack.enter_async_context(
            Database(settings.database_url, application_name=name, max_size=4, **settings.client.statements)
        )
        await wait_for_servers(redis, database, keys, queue=keys.queue_of(settings.queues[0]))
        checkpoints = await stack.enter_async_context(checkpoint_database(settings, keys, name))
        effects = await stack.enter_async_context(
            Database(
                settings.direct_url,
                application_name=name,
                transaction_timeout=settings.transaction_timeout,
                lent=True,
            )
        )
        await checkpoints.ready()
        if settings.client.pooled:
            await check_schema(checkpoints, keys)
        client = settings.client
        ledger = Custody(database, self._queries, lease_seconds=settings.lease, vault=client.vault)
        events = EventLog(
            redis, keys, max_events=client.event_max, ttl_seconds=client.event_ttl_seconds, vault=client.vault
        )
        return Services(
            settings=settings,
            keys=keys,
            ledger=ledger,
            checkpoints=checkpoints.pool,
            effects=effects,
            redis=redis,
            events=events,
            announcer=Announcer(ledger, events, self._metrics),
            agents=self._agents,
            liveness=self._liveness(ledger),
            metrics=self._metrics,
            courier=self._courier(stack, database),
            store=await open_store(checkpoints, keys, settings.memory, client.vault),
            traces=self._traces,
        )

    def _courier(self, stack: AsyncExitStack, database: Database) -> Courier:
        sender = Sender(self._settings.webhooks.allow, connections=SLOTS)
        stack.push_async_callback(sender.aclose)
        outbox = Outbox(database, self._queries, vault=self._settings.client.vault)
        return Courier(outbox, sender, self._settings.webhooks.secrets, self._metrics)

    def _liveness(self, ledger: Custody) -> Liveness:
        settings = self._settings
        reconciler = Reconciler(
            ledger,
            self._runs,
            self.worker_id,
            self._metrics,
            spawn=self._spawn,
            register=lambda: self._register(ledger),
        )
        return Liveness(
            settings.direct_url,
            self._queries,
            self.worker_id,
            heartbeat=settings.heartbeat,
            lease=settings.lease,
            loop_stall=settings.loop_stall,
            channel=self._keys.schema,
            runs=self._runs.epochs,
            on_beat=reconciler.heard,
            on_notice=self._sweep_soon,
        )

    async def _work(self, services: Services, stack: AsyncExitStack) -> None:
        settings, liveness = self._settings, services.liveness
        direct = Database(
            settings.direct_url,
            application_name=liveness.application_name,
            transaction_timeout=settings.transaction_timeout,
        )
        rescuer = Rescuer(self._queries, self.worker_id, heartbeat=settings.heartbeat, lease=settings.lease)
        adoption = Adoption(services)
        self._sweep = Sweep(services, direct, rescuer, adoption)
        self._reports = services.courier.soon
        health = Health(
            self._runs, liveness, self._sweep, services.refusals, self._draining, loop_stall=settings.loop_stall
        )
        stack.callback(expose(services, self._runs, health, self._drained_for).stop)
        liveness.start()
        stack.push_async_callback(liveness.stop)
        intake = Intake(services, adoption, self._runs, self.worker_id, self._spawn)
        consumer = Consumer(
            services.redis,
            self._keys,
            self._runs,
            queues=self._settings.queues,
            handler=intake.take,
            dead_letter=adoption.dead_letter,
            may_claim=health.may_claim,
            on_control=partial(self._on_control, liveness),
            on_purged=lambda why: self._metrics.messages_purged.labels(reason=why).inc(),
            fleet=lambda: rescuer.others + 1,
        )
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(self._sweep.run(), name="sweep")
            consuming = tasks.create_task(consumer.run(), name="consume")
            reporting = tasks.create_task(services.courier.run(), name="webhooks")
            keeping = tasks.create_task(keeper_of(services).run(), name="store")
            retaining = tasks.create_task(schedule_of(services).run(), name="retention")
            if self._burst:
                tasks.create_task(self._drain_when_idle(services), name="burst")
            log.info("worker.ready", agents=self._agents.names, slots=self._runs.slots, queues=self._settings.queues)
            await self._draining.wait()
            await self._drain(liveness, consuming)
            sweeping.cancel()
            reporting.cancel()
            keeping.cancel()
            retaining.cancel()

    async def _drain(self, liveness: Liveness, consuming: asyncio.Task[None]) -> None:
        """A soft stop: the beat goes on until the last job is given back."""
        self._drain_began = time.monotonic()
        log.info("worker.draining", running=len(self._runs), seconds=self._settings.drain)
        liveness.draining = True
        for run in self._runs:
            run.drain()
        # It ends behind the claims under way; the runs of these are drained, and waited for like all others.
        consuming.cancel()
        self._own(consuming)
        stop_now = asyncio.create_task(self._stop_now.wait())
        await self._until_idle(self._settings.drain, stop_now)
        stop_now.cancel()
        for run in self._runs:
            run.cut()
        await self._until_idle(_LAST_WORDS_SECONDS)
        # Postgres is away: what cannot be given back now is for rescue, which takes it once we are silent.
        for task in (left := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _until_idle(self, limit: float, stop: asyncio.Task[Any] | None = None) -> None:
        ends = set() if stop is None else {stop}
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._tasks and not any(end.done() for end in ends):
                    await asyncio.wait({*self._tasks, *ends}, return_when=asyncio.FIRST_COMPLETED)

    async def _drain_when_idle(self, services: Services) -> None:
        """`--burst`: end once nothing that could be claimed is left."""
        while not self._draining.is_set():
            try:
                waiting = await self._waiting(services)
                idle = not waiting and not len(self._runs) and not self._tasks and not await services.courier.busy()
            except REDIS_ERRORS:  # BackendUnavailable is a ConnectionError, too
                idle = False
            if idle:
                self._draining.set()
                return
            await asyncio.sleep(self._settings.heartbeat / 2)

    async def _waiting(self, services: Services) -> bool:
        """Whether the queues that are served here have anything left; carried jobs are in no ledger yet."""
        queues = self._settings.queues
        if await services.ledger.unfinished(queues):
            return True
        return any([await services.redis.zcard(self._keys.queue_of(queue)) for queue in queues])

    async def _register(self, ledger: Custody) -> None:
        row = await ledger.database.row(
            self._queries["register"],
            {
                "worker_id": self.worker_id,
                "lock_key": worker_lock_key(self._keys.schema, self.worker_id),
                "version": __version__,
                "agents": dumps(self._agents.registered()).decode(),
                "concurrency": self._settings.concurrency,
                "queues": list(self._settings.queues),
            },
        )
        if row is not None and row["in_recovery"]:
            raise BackendUnavailable("Postgres is a read-only replica: point DATABASE_URL at the primary")
        named = {"worker_id": self.worker_id, "user_names": self._settings.client.user_names.mark}
        await ledger.database.rows(self._queries["register_names"], named)

    def _tell_agents(self, ledger: Custody) -> None:
        self._spawn(self._register_agents(ledger))

    async def _register_agents(self, ledger: Custody) -> None:
        """A load tells the graph's fingerprint and if it takes text; nothing waits, a registration tells both, too."""
        agents = dumps(self._agents.registered()).decode()
        try:
            await ledger.database.rows(
                self._queries["register_agents"], {"worker_id": self.worker_id, "agents": agents}
            )
        except BackendUnavailable as error:
            log.warning("beat.failed", error=reason(error))

    async def _unregister(self, ledger: Custody) -> None:
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await ledger.database.rows(self._queries["unregister"], {"worker_id": self.worker_id})
        except (BackendUnavailable, TimeoutError) as error:
            log.warning("beat.failed", error=reason(error))  # rescuers find the silence

    async def _last_traces(self) -> None:
        """What has not been sent yet: within the drain's time, or for a moment behind it."""
        limit = min(_LAST_TRACES_SECONDS, max(0.5, self._settings.drain - self._drained_for()))
        await asyncio.gather(self._traces.close(limit), flush_langsmith(limit))

    def _drained_for(self) -> float:
        return 0.0 if self._drain_began is None else time.monotonic() - self._drain_began

    def _sweep_soon(self) -> None:
        """All workers hear of a change in the ledger; some are enough."""
        if self._sweep.chosen():
            self._sweep.call()
            self._reports.set()  # what a client has cancelled is an end, too

    def _on_control(self, liveness: Liveness, command: dict[str, Any]) -> None:
        """`{"cancel": job_id}` says where to look, not what to do: the request stands in the ledger."""
        run = self._runs.get(str(command.get("cancel")))
        if run is not None:
            liveness.beat_now()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Own a task until it ends; a drain waits for all of them."""
        # Also for its end: a task's callback would run in the context of whoever began it.
        context = contextvars.copy_context()
        return self._own(asyncio.create_task(coroutine, context=context), context)

    def _own(self, task: asyncio.Task[None], context: contextvars.Context | None = None) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._ended, context=context)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A run catches what its job does; this is a bug of ours, and the beat's comparison gives the job back.
            log.error("job.failed", exc_info=error)
