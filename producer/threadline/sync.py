"""`Client` and `Job` for blocking code (Django, Flask, scripts): the same calls, arguments, results and errors.

    from threadline.sync import Client

    with Client.from_env() as client:
        job = client.enqueue("research", "What changed in PostgreSQL 18?")
        for event in job.events():
            print(event.type, event.data)
        print(job.result(timeout=60))

One client serves all threads of a process. Its connections live in an event loop in a thread of its own, which begins
with the first call and ends with `close()`; after a fork the child begins its own. Ctrl-C is raised at once in whatever
call waits. A thread that has a running event loop may call it, too: that loop stands still meanwhile, so a coroutine
should use `threadline.Client`.
"""

# ruff: noqa: D102 - `_same` takes the docstrings over from the async classes

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from psycopg import AsyncConnection, Connection

from threadline.calls.erase import Deleted
from threadline.calls.prune import Pruned
from threadline.calls.travel import DEFAULT_SECONDS
from threadline.client import Client as AsyncClient
from threadline.contract.events import Event
from threadline.contract.job import JobStatus
from threadline.contract.waiting import Waiting
from threadline.job import Job as AsyncJob
from threadline.ledger.lent import Lent
from threadline.portal import Portal
from threadline.settings import ClientSettings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Client", "Job"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


def _same(original: Callable[..., object]) -> Callable[[F], F]:
    """Take the docstring over; tests/unit/test_sync_signatures.py compares the signatures."""

    def documented(method: F) -> F:
        method.__doc__ = original.__doc__
        return method

    return documented


class Client:
    """Enqueues jobs, follows them and awaits their results, blocking.

    `redis_url` and `database_url` are the two servers; with Redis alone a client enqueues, follows and awaits results,
    everything else raises NeedsDatabase. Connections open on first use, in every process anew. Use it as a context
    manager, or call `close()`. With `metrics`, a registry of prometheus-client, `threadline_jobs_enqueued_total{agent}`
    counts in it the jobs that this client makes. `queues` maps agents, and users as `user:ID`, to the queues that their
    jobs wait in (instead of THREADLINE_QUEUES). Raises ConfigurationError when neither server is named, a URL cannot be
    read, or a queue's name is none.
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
        servers: dict[str, Any] = {"redis_url": redis_url, "database_url": database_url, "settings": settings}
        make = partial(AsyncClient, **servers, metrics=metrics, queues=queues)
        make()  # raises what is wrong with the arguments here, not at the first call
        self._portal = Portal(make, AsyncClient.aclose)

    @classmethod
    @_same(AsyncClient.from_env)
    def from_env(cls, env: Mapping[str, str] = os.environ, *, metrics: CollectorRegistry | None = None) -> Client:
        return cls(settings=ClientSettings.from_env(env), metrics=metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, end the event loop and its thread; safe to call twice."""
        self._portal.close()

    @_same(AsyncClient.enqueue)
    def enqueue(
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
        timeout: float | timedelta | None = None,
        metadata: dict[str, Any] | None = None,
        stream_modes: Sequence[str] = ("updates",),
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        checkpoint_id: str | None = None,
        connection: Connection[Any] | None = None,
        webhook_url: str | None = None,
        wait_expires: float | timedelta | None = None,
        configurable: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        traceparent: str | None = None,
        queue: str | None = None,
    ) -> Job:
        lent = None if connection is None else self._lend(connection)
        ask = partial(
            AsyncClient.enqueue,
            agent=agent,
            input=input,
            thread_id=thread_id,
            user_id=user_id,
            on_busy=on_busy,
            idempotency_key=idempotency_key,
            run_at=run_at,
            expires=expires,
            timeout=timeout,
            metadata=metadata,
            stream_modes=stream_modes,
            interrupt_before=interrupt_before,
            interrupt_after=interrupt_after,
            checkpoint_id=checkpoint_id,
            # What the ledger asks of a connection it asks of a lent one, too, which runs it in this thread.
            connection=cast("AsyncConnection[Any] | None", lent),
            webhook_url=webhook_url,
            wait_expires=wait_expires,
            configurable=configurable,
            context=context,
            traceparent=traceparent,
            queue=queue,
        )
        job = self._portal.call(ask, meanwhile=None if lent is None else partial(_serve, lent))
        return Job(self, job.job_id, job.thread_id, user_id)

    @_same(AsyncClient.job)
    def job(self, job_id: str, *, user_id: str | None = None) -> Job:
        found = self._call(partial(AsyncClient.job, job_id=job_id, user_id=user_id))
        return Job(self, found.job_id, found.thread_id, user_id)

    @_same(AsyncClient.jobs)
    def jobs(
        self,
        *,
        state: str | None = None,
        thread_id: str | None = None,
        user_id: str | None = None,
        limit: int = 50,
        queue: str | None = None,
    ) -> list[JobStatus]:
        matching: dict[str, Any] = {"state": state, "thread_id": thread_id, "user_id": user_id, "queue": queue}
        return self._call(partial(AsyncClient.jobs, **matching, limit=limit))

    @_same(AsyncClient.retry)
    def retry(self, job_id: str, *, user_id: str | None = None) -> Job:
        again = self._call(partial(AsyncClient.retry, job_id=job_id, user_id=user_id))
        return Job(self, again.job_id, again.thread_id, user_id)

    @_same(AsyncClient.resume)
    def resume(
        self,
        thread_id: str,
        value: Any = None,
        *,
        values: dict[str, Any] | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        ask = partial(
            AsyncClient.resume,
            thread_id=thread_id,
            value=value,
            values=values,
            user_id=user_id,
            metadata=metadata,
            idempotency_key=idempotency_key,
        )
        job = self._call(ask)
        return Job(self, job.job_id, job.thread_id, user_id)

    @_same(AsyncClient.inbox)
    def inbox(self, *, user_id: str | None = None, thread_id: str | None = None, limit: int = 50) -> list[Waiting]:
        return self._call(partial(AsyncClient.inbox, user_id=user_id, thread_id=thread_id, limit=limit))

    @_same(AsyncClient.state)
    def state(
        self,
        thread_id: str,
        *,
        checkpoint_id: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,
    ) -> dict[str, Any]:
        who: dict[str, Any] = {"user_id": user_id, "agent": agent, "timeout": timeout}
        return self._call(lambda client: client.state(thread_id, checkpoint_id=checkpoint_id, **who))

    @_same(AsyncClient.history)
    def history(
        self,
        thread_id: str,
        *,
        limit: int = 20,
        before: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,
    ) -> list[dict[str, Any]]:
        who: dict[str, Any] = {"user_id": user_id, "agent": agent, "timeout": timeout}
        return self._call(lambda client: client.history(thread_id, limit=limit, before=before, **who))

    @_same(AsyncClient.fork)
    def fork(
        self,
        thread_id: str,
        *,
        checkpoint_id: str | None = None,
        new_thread_id: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,
    ) -> str:
        who: dict[str, Any] = {"user_id": user_id, "agent": agent, "timeout": timeout}
        return self._call(
            lambda client: client.fork(thread_id, checkpoint_id=checkpoint_id, new_thread_id=new_thread_id, **who)
        )

    @_same(AsyncClient.update_state)
    def update_state(
        self,
        thread_id: str,
        values: dict[str, Any] | None,
        *,
        as_node: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        timeout: float | timedelta = DEFAULT_SECONDS,
    ) -> str:
        who: dict[str, Any] = {"user_id": user_id, "agent": agent, "timeout": timeout}
        return self._call(lambda client: client.update_state(thread_id, values, as_node=as_node, **who))

    @_same(AsyncClient.redeliver)
    def redeliver(self, job_id: str, *, user_id: str | None = None) -> JobStatus:
        return self._call(partial(AsyncClient.redeliver, job_id=job_id, user_id=user_id))

    @_same(AsyncClient.thread_events)
    def thread_events(
        self, thread_id: str, *, user_id: str | None = None, after: str | None = None
    ) -> Generator[Event, None, None]:
        return self._iterate(partial(AsyncClient.thread_events, thread_id=thread_id, user_id=user_id, after=after))

    @_same(AsyncClient.prune)
    def prune(
        self,
        *,
        older_than: float | timedelta | None = None,
        keep: str = "latest",
        jobs: float | timedelta | None = None,
        threads: float | timedelta | None = None,
        waiting: bool = False,
    ) -> Pruned:
        ages: dict[str, Any] = {"older_than": older_than, "keep": keep, "jobs": jobs, "threads": threads}
        return self._call(lambda client: client.prune(**ages, waiting=waiting))

    @_same(AsyncClient.delete_user)
    def delete_user(self, user_id: str) -> Deleted:
        return self._call(partial(AsyncClient.delete_user, user_id=user_id))

    def _lend(self, connection: Connection[Any]) -> Lent:
        return Lent(connection)

    # What a Job asks for:

    def _call(self, ask: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        return self._portal.call(ask)

    def _iterate(self, ask: Callable[[AsyncClient], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        return self._portal.iterate(ask)


class Job:
    """`job_id`, `thread_id`; made by `Client.enqueue` and `Client.job`."""

    def __init__(self, client: Client, job_id: str, thread_id: str, user_id: str | None) -> None:
        self._client = client
        self._user_id = user_id
        self.job_id = job_id
        self.thread_id = thread_id

    def __repr__(self) -> str:
        return f"Job(job_id={self.job_id!r}, thread_id={self.thread_id!r})"

    @_same(AsyncJob.events)
    def events(self, *, after: str | None = None) -> Generator[Event, None, None]:
        return self._client._iterate(lambda client: self._of(client).events(after=after))  # noqa: SLF001 - its Job

    @_same(AsyncJob.status)
    def status(self) -> JobStatus:
        return self._client._call(lambda client: self._of(client).status())  # noqa: SLF001 - its Job

    @_same(AsyncJob.cancel)
    def cancel(self, *, rollback: bool = False) -> JobStatus:
        return self._client._call(lambda client: self._of(client).cancel(rollback=rollback))  # noqa: SLF001 - its Job

    @_same(AsyncJob.result)
    def result(self, *, timeout: float | timedelta | None = None) -> Any:
        return self._client._call(lambda client: self._of(client).result(timeout=timeout))  # noqa: SLF001 - its Job

    def _of(self, client: AsyncClient) -> AsyncJob:
        """This job at the client of the process that asks: it may have been forked since."""
        return AsyncJob(client, self.job_id, self.thread_id, self._user_id)


def _serve(lent: Lent, call: Future[AsyncJob]) -> None:
    call.add_done_callback(lambda _: lent.withdraw())
    lent.serve()
