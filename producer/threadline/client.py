"""The client of other services: an accepted job is never lost, and bad input is refused before anything is stored."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from psycopg import AsyncConnection

from threadline.calls.announce import Announcer
from threadline.calls.backends import Backends, named
from threadline.calls.care import Care
from threadline.calls.control import Control
from threadline.calls.erase import Deleted
from threadline.calls.people import People
from threadline.calls.progress import Progress
from threadline.calls.prune import Pruned
from threadline.calls.submit import Submission
from threadline.calls.travel import DEFAULT_SECONDS, Travel
from threadline.contract.events import Event
from threadline.contract.job import JobRequest, JobStatus, check_id, check_thread_id, seconds
from threadline.contract.keys import Keys
from threadline.contract.waiting import Waiting
from threadline.job import Job
from threadline.ledger.answers import Answer
from threadline.ledger.ledger import Snapshot, on_busy
from threadline.metrics import jobs_enqueued
from threadline.settings import ClientSettings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Client"]

_on_busy = on_busy


class Client:
    """Enqueues jobs, follows them and awaits their results.

    `redis_url` and `database_url` are the two servers; with Redis alone a client enqueues, follows and awaits results,
    everything else raises NeedsDatabase. Connections open on first use. Use it as an async context manager, or call
    `aclose()`. With `metrics`, a registry of prometheus-client, `threadline_jobs_enqueued_total{agent}` counts the jobs
    that this client makes. `queues` maps agents, and users as `user:ID`, to the queues that their jobs wait in (instead
    of THREADLINE_QUEUES). Raises ConfigurationError when neither server is named, a URL cannot be read, or a queue's
    name is none.
    """

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        database_url: str | None = None,
        settings: ClientSettings | None = None,
        metrics: CollectorRegistry | None = None,
        queues: Mapping[str, str] | None = None,
    ) -> None:
        backends = Backends(named(settings, redis_url, database_url, queues))
        backends.enqueued = None if metrics is None else jobs_enqueued(metrics)
        self._connect(backends)

    def _connect(self, backends: Backends) -> None:
        """Put the roles together; `threadline.testing` does so over a ledger in memory."""
        self._backends = backends
        self.keys: Keys = backends.keys
        announcer = Announcer(backends.log)
        self._submission = Submission(backends, announcer)
        self._control = Control(backends, announcer)
        self._progress = Progress(backends)
        self._people = People(backends, self._submission)
        self._travel = Travel(backends, self._submission)
        self._care = Care(backends)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, *, metrics: CollectorRegistry | None = None) -> Client:
        """A client of the environment's servers. Raises ConfigurationError that names the variable."""
        return cls(settings=ClientSettings.from_env(env), metrics=metrics)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        await self._backends.aclose()

    async def enqueue(
        self,
        agent: str,
        input: str | dict[str, Any],  # noqa: A002 - the public contract's name
        *,
        thread_id: str | None = None,
        user_id: str = "default",
        on_busy: str = "enqueue",
        idempotency_key: str | None = None,
        run_at: datetime | None = None,
        expires: float | timedelta | None = None,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - the job's, not this call's
        metadata: dict[str, Any] | None = None,
        stream_modes: Sequence[str] = ("updates",),
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        checkpoint_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
        webhook_url: str | None = None,
        wait_expires: float | timedelta | None = None,
        configurable: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        traceparent: str | None = None,
        queue: str | None = None,
    ) -> Job:
        """Store a job and hand it to the workers; the job exists once this returns (or once `connection` commits).

        `input` is text (one human message) or the graph's input. Without `thread_id` a new thread is made. `on_busy`
        is enqueue, reject, interrupt or rollback. `expires` (until the first claim) and `timeout` (running time) are
        seconds or timedelta; so is `wait_expires`, after which a question that nobody has answered ends the job as
        `cancelled/expired`. `webhook_url` is told of each end of the job. `configurable` and `context` are what the
        graph reads under these names; thread, user and job in them are always ours. `traceparent` (W3C) is the trace
        that the job belongs to, by default the current OpenTelemetry span's. `queue` is where the job waits for a
        worker that serves it (None: as the client's `queues` say, else `default`), for as long as none does. Raises
        InvalidJob, UnknownAgent, ThreadBusy, ThreadOwnedByAnother, BackendUnavailable, NotMigrated, NeedsDatabase.
        After BackendUnavailable it is safe to repeat with the same `idempotency_key`.
        """
        new_id = self._submission.new_id
        request = JobRequest(
            job_id=new_id("job", user_id, idempotency_key),
            agent=agent,
            input=input,
            thread_id=(new_id("thread", user_id, idempotency_key) if thread_id is None else check_thread_id(thread_id)),
            user_id=user_id,
            on_busy=_on_busy(on_busy),
            idempotency_key=idempotency_key,
            run_at=run_at,
            expires=seconds("expires", expires),
            timeout=seconds("timeout", timeout),
            metadata={} if metadata is None else metadata,
            stream_modes=_listed(stream_modes),
            interrupt_before=_listed(interrupt_before),
            interrupt_after=_listed(interrupt_after),
            checkpoint_id=checkpoint_id,
            webhook_url=webhook_url,
            wait_expires=seconds("wait_expires", wait_expires),
            configurable=configurable,
            context=context,
            traceparent=traceparent,
            queue=queue,
        ).check()
        job_id, on_thread = await self._submission.submit(
            request, made_up_thread=thread_id is None, connection=connection
        )
        return Job(self, job_id, on_thread, user_id)

    async def job(self, job_id: str, *, user_id: str | None = None) -> Job:
        """The handle of a known job. Raises JobNotFound, ThreadOwnedByAnother.

        With Redis alone nobody can say whether the id is known: the handle is made unseen, and its `events()` and
        `result()` wait for as long as nothing is published under that id; it may be enqueued later. Nor whose it is: a
        `user_id` raises NeedsDatabase.
        """
        check_id("job id", job_id)
        if user_id is not None:
            self._backends.need_ledger("user_id=")
        if not self.has_ledger:
            return Job(self, job_id, "", None)
        snapshot = await self.snapshot(job_id, user_id)
        return Job(self, job_id, snapshot.status.thread_id, user_id)

    async def jobs(
        self,
        *,
        state: str | None = None,
        thread_id: str | None = None,
        user_id: str | None = None,
        limit: int = 50,
        queue: str | None = None,
    ) -> list[JobStatus]:
        """Jobs that match, newest first. Raises InvalidJob for an unknown state, NeedsDatabase."""
        return await self._control.jobs(state, thread_id, user_id, limit, queue=queue)

    async def retry(self, job_id: str, *, user_id: str | None = None) -> Job:
        """Continue a failed or cancelled job from its last checkpoint, as the same job with a new epoch.

        Raises JobNotFound, InvalidJob (it has not ended), ThreadMovedOn, ThreadOwnedByAnother, NeedsDatabase.
        """
        status = await self._control.retry(job_id, user_id)
        return Job(self, job_id, status.thread_id, user_id)

    async def resume(
        self,
        thread_id: str,
        value: Any = None,
        *,
        values: dict[str, Any] | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Answer what the thread waits for; gives the new job that goes on, with the asking job's agent and options.

        `value` answers the only question, `values` several by interrupt id (those left out are asked again). Behind a
        breakpoint (`interrupt_before`, `interrupt_after`) nothing is asked: give neither. Raises NotWaiting (also the
        second time), InvalidJob (lists the ids of what is asked), ThreadOwnedByAnother, BackendUnavailable (safe to
        repeat with the same `idempotency_key`), NeedsDatabase.
        """
        job_id, on_thread, owner = await self._people.resume(
            thread_id, Answer(value, values), user_id=user_id, metadata=metadata, idempotency_key=idempotency_key
        )
        return Job(self, job_id, on_thread, user_id if user_id is None else owner)

    async def inbox(
        self, *, user_id: str | None = None, thread_id: str | None = None, limit: int = 50
    ) -> list[Waiting]:
        """What waits for a person, longest first, with what is asked. Raises NeedsDatabase."""
        return await self._people.inbox(user_id, thread_id, limit)

    async def state(
        self,
        thread_id: str,
        *,
        checkpoint_id: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,  # noqa: ASYNC109 - the answer's
    ) -> dict[str, Any]:
        """A thread's state, at its head or at a checkpoint, also while a job runs.

        `{"values", "next", "interrupts", "checkpoint_id", "created_at"}`: the graph's values as JSON, the nodes that
        come next, the open questions (`{"id", "value"}`). A worker that has the agent (None: that of the thread's
        latest job) reads it; `timeout` are seconds or timedelta until it has answered. Raises JobNotFound (no such
        thread), InvalidJob (no such checkpoint), ThreadOwnedByAnother, UnknownAgent, ResultTimeout (it says whether a
        worker is alive), JobFailed, BackendUnavailable, NeedsDatabase.
        """
        return await self._travel.state(thread_id, checkpoint_id, user_id=user_id, agent=agent, timeout=timeout)

    async def history(
        self,
        thread_id: str,
        *,
        limit: int = 20,
        before: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,  # noqa: ASYNC109 - the answer's
    ) -> list[dict[str, Any]]:
        """A thread's checkpoints, newest first: at most `limit` (and 1,000), those older than the checkpoint `before`.

        Each is `{"checkpoint_id", "step", "next", "created_at", "metadata"}`. The last one's `checkpoint_id` is the
        next page's `before`. Raises as `state`.
        """
        return await self._travel.history(thread_id, limit, before, user_id=user_id, agent=agent, timeout=timeout)

    async def fork(
        self,
        thread_id: str,
        *,
        checkpoint_id: str | None = None,
        new_thread_id: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,  # noqa: ASYNC109 - the answer's
    ) -> str:
        """Make a new thread of the same user that begins as this one was at a checkpoint (None: its head); its id.

        The thread itself stays as it is, and may be running. Without `new_thread_id` an id is made. Raises as `state`;
        InvalidJob also if the new thread exists.
        """
        return await self._travel.fork(
            thread_id, checkpoint_id, new_thread_id, user_id=user_id, agent=agent, timeout=timeout
        )

    async def update_state(
        self,
        thread_id: str,
        values: dict[str, Any] | None,
        *,
        as_node: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,  # noqa: ASYNC109 - the answer's
    ) -> str:
        """Change a thread's state as if the node `as_node` (None: the last one that ran) had returned `values`.

        Gives the new checkpoint's id. Nothing else runs on the thread meanwhile; it is done once or not at all. Raises
        as `state`, and ThreadBusy while a job of the thread runs, is queued or waits for a person; InvalidJob for what
        the graph refuses. After ResultTimeout or BackendUnavailable, `history` tells whether it was done.
        """
        return await self._travel.update_state(
            thread_id, values, as_node, user_id=user_id, agent=agent, timeout=timeout
        )

    async def redeliver(self, job_id: str, *, user_id: str | None = None) -> JobStatus:
        """Send the webhook of the job's latest end once more, with all its tries; the job's status.

        Raises JobNotFound, InvalidJob (it has no `webhook_url`, or has not ended), ThreadOwnedByAnother, NeedsDatabase.
        """
        return await self._control.redeliver(job_id, user_id)

    async def thread_events(
        self, thread_id: str, *, user_id: str | None = None, after: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Follow a thread across all its jobs: history, then live, then new jobs as they come. It never ends by itself.

        The events come job by job, in the order in which the jobs began to run, each job's events in their order. A
        job that waits its turn is told, from its `queued` on, once it starts; one that ends without having run, once
        it has ended; one that is retried, from there on, once it starts again. So one position is enough to go on
        from: `after="JOB/ID"` are the job id and the event id of any event that was yielded; what stands before it is
        not told again.

        As with `Job.events`, each event comes once, or a `gap` (with the job's id) says where not. A thread that does
        not exist yet is waited for. Close the generator (`aclose()`, `contextlib.aclosing`) to stop: nothing is left.

        With Redis alone (no database_url) nobody knows the thread's earlier jobs: it begins with the job of `after`,
        if given, and goes on with those that are heard of from now on, each with its whole log. A `gap` with an empty
        `job_id` says that whole jobs may be missing, because the connection was lost or because of `after`. A
        `user_id`, which nobody could check, raises NeedsDatabase.

        Raises ThreadOwnedByAnother, InvalidJob (`thread_id` or `after` is none), JobNotFound (the job of `after` is
        not, or no more, one of this thread), BackendUnavailable if a server cannot be reached at the start.
        """
        stream = self._progress.thread_events(thread_id, user_id, after)
        async with aclosing(stream):
            async for event in stream:
                yield event

    async def prune(
        self,
        *,
        older_than: float | timedelta | None = None,
        keep: str = "latest",
        jobs: float | timedelta | None = None,
        threads: float | timedelta | None = None,
        waiting: bool = False,
    ) -> Pruned:
        """Make what is old smaller, or let it go; ages are seconds or timedelta, None leaves that alone.

        Threads idle for `older_than` are compacted to their latest state, by a worker that has their agent: they go on
        as before, without their history. Jobs that ended `jobs` ago go, and their idempotency keys with them; so do
        dead letters. Threads idle for `threads` go with all that they have. Never one with a queued or running job,
        nor, unless `waiting`, one that waits for a person. Safe to repeat. For operators: no user is checked. Raises
        InvalidJob, ResultTimeout (no worker compacts), BackendUnavailable, NeedsDatabase.
        """
        return await self._care.prune(older_than, keep, jobs, threads, waiting=waiting)

    async def delete_user(self, user_id: str) -> Deleted:
        """Erase everything of a user, also while jobs of theirs run: threads, memory, jobs, progress, queued messages.

        The answer counts what is gone and what is left, which is 0 everywhere; an audit line without the id stays. What
        is enqueued for the user meanwhile is refused (BackendUnavailable). Where Redis is away, `finished` is false and
        workers do the rest. Safe to repeat after any error; begun, it is also finished by workers. For operators.
        Raises InvalidJob, ConfigurationError (workers name users otherwise), BackendUnavailable, NeedsDatabase.
        """
        return await self._care.delete_user(user_id)

    # What a Job asks for:

    async def snapshot(self, job_id: str, user_id: str | None) -> Snapshot:
        """A job as the ledger has it. Raises JobNotFound, ThreadOwnedByAnother, NeedsDatabase."""
        return await self._control.snapshot(job_id, user_id)

    async def cancel(self, job_id: str, user_id: str | None, *, rollback: bool = False) -> JobStatus:
        """Queued ends at once, running is asked to stop, ended is a no-op."""
        return await self._control.cancel(job_id, user_id, rollback=rollback)

    async def events(self, job_id: str, user_id: str | None, after: str | None) -> AsyncGenerator[Event, None]:
        """The job's log; see `Job.events`."""
        stream = self._progress.events(job_id, user_id, after)
        async with aclosing(stream):
            async for event in stream:
                yield event

    @property
    def has_ledger(self) -> bool:
        """Whether this client can ask Postgres."""
        return self._backends.ledger is not None

    @property
    def has_redis(self) -> bool:
        """Whether this client can follow."""
        return self._backends.redis is not None


def _listed(names: Any) -> Any:
    """Any sequence as a list; what is none, or a str, goes on to JobRequest.check as it is."""
    return list(names) if isinstance(names, Iterable) and not isinstance(names, (str, bytes, Mapping)) else names
