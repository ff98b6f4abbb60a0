"""The testing clients: the real calls and checks over a ledger in memory, and hands to move jobs and look at them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import msgspec
from psycopg import AsyncConnection, Connection

import threadline.client
import threadline.sync
from threadline.calls.announce import Announcer
from threadline.calls.backends import Backends
from threadline.calls.submit import Submission
from threadline.contract.events import Event
from threadline.contract.job import JobRequest
from threadline.contract.queues import as_queue_map
from threadline.errors import JobCancelled, JobFailed, JobInterrupted
from threadline.job import Job
from threadline.ledger.lent import Lent
from threadline.metrics import jobs_enqueued
from threadline.portal import Portal
from threadline.settings import ClientSettings
from threadline.testing.progress import MemoryProgress
from threadline.testing.records import Enqueued, Resumed, matching
from threadline.testing.script import UNSET, Script, end_of, lines_of
from threadline.testing.stage import Stage
from threadline.testing.statements import MemoryLedger

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Client", "SyncClient"]

T = TypeVar("T")
Raises = JobFailed | JobCancelled | JobInterrupted
#: The handle of either client, or a job id.
AnyJob = Job | threadline.sync.Job | str
#: (type, data), (type, data, ns) or an Event, whose type, data, ns and step count.
AnyEvent = Event | tuple[Any, ...]


class Client(threadline.client.Client):
    """A `threadline.Client` that needs no servers. Closing it forgets nothing: it may be used, and looked at, again.

    `agents` are those that live workers have: their names, or a dict that says of each whether it takes text as its
    input (None: every agent is accepted, as while no worker lives). `patience` is the seconds after which a reader for
    whom nothing happens raises AssertionError instead of waiting for ever. `queues` is the real client's.
    """

    def __init__(
        self,
        *,
        agents: Iterable[str] | Mapping[str, bool] | None = None,
        patience: float = 5.0,
        queues: Mapping[str, str] | None = None,
    ) -> None:
        self._stage = Stage(_agents(agents))
        self._enqueued: list[Enqueued] = []
        self._connect(_MemoryBackends(self._stage, queues or {}))
        self._submission = _Recorder(self._backends, Announcer(None), self._enqueued)
        self._progress = MemoryProgress(self._backends, self._stage, patience)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, *, metrics: CollectorRegistry | None = None) -> Self:  # noqa: ARG003 - as the real one
        """A client of its own, whatever the environment names."""
        made = cls()
        made._backends.enqueued = None if metrics is None else jobs_enqueued(metrics)
        return made

    @property
    def has_redis(self) -> bool:
        """Progress can be followed."""
        return True

    # What jobs do:

    def script(
        self, agent: str, *, events: Iterable[AnyEvent] = (), result: Any = UNSET, raises: Raises | None = None
    ) -> None:
        """What a job of this agent does from now on: these events, then the result, or the error that it ends with.

        `result` may be a function of the job's input (of a resume job: its answers by interrupt id). `raises` is what
        `Job.result` shall raise: JobFailed(code, message), JobCancelled(code) or JobInterrupted([{"id", "value"}]).
        With neither the job goes on running. Of several scripts each run takes the next one, the last one is for all
        later runs. Jobs that are due and have waited for a script run at once. Raises ValueError for what is not JSON.
        """
        if result is not UNSET and raises is not None:
            raise ValueError("give a result or raises=, not both")
        self._stage.script(agent, Script(lines_of(events), result, raises))

    def start(self, job: AnyJob) -> None:
        """A worker takes the queued job, whatever stands before it. Raises JobNotFound, ValueError (not queued)."""
        self._stage.start(self._stage.job(_job_id(job)))

    def emit(self, job: AnyJob, type: str, data: Any = None, *, ns: Sequence[str] = ()) -> Event:  # noqa: A002 - the event's
        """Publish an event of the running job. Raises JobNotFound, ValueError (not running, data not JSON)."""
        [line] = lines_of([(type, data, tuple(ns))])
        return self._stage.emit(self._stage.job(_job_id(job)), line)

    def finish(self, job: AnyJob, result: Any = None, *, raises: Raises | None = None) -> None:
        """End the running job with a result, or as `raises` says (see `script`). Raises JobNotFound, ValueError."""
        self._stage.finish(self._stage.job(_job_id(job)), end_of(result, raises))
        self._stage.advance()

    def play(self, job: AnyJob) -> None:
        """Run the queued job through its agent's next script now, due or not. Raises JobNotFound, ValueError."""
        self._stage.play(self._stage.job(_job_id(job)))
        self._stage.advance()

    # What was asked:

    @property
    def enqueued(self) -> list[Enqueued]:
        """All jobs that were enqueued (not resumed), in order; a repeated idempotency key adds none."""
        return list(self._enqueued)

    @property
    def resumed(self) -> list[Resumed]:
        """All answers, in order."""
        answers = (job for job in self._stage.jobs.values() if job.kind == "resume")
        return [Resumed(job.job_id, job.thread_id, job.user_id, job.input) for job in answers]

    def assert_enqueued(self, agent: str | None = None, *, count: int | None = None, **fields: Any) -> list[Enqueued]:
        """Those jobs that were enqueued with these fields (of Enqueued, so of `enqueue`); each is compared with ==.

        Raises AssertionError that shows what was enqueued, unless there are `count` of them (None: at least one).
        """
        return matching(self._enqueued, fields if agent is None else {"agent": agent, **fields}, count)

    def assert_nothing_enqueued(self) -> None:
        """Raise AssertionError that shows what was enqueued."""
        self.assert_enqueued(count=0)


class SyncClient(threadline.sync.Client):
    """The same for code that uses `threadline.sync.Client`."""

    def __init__(
        self,
        *,
        agents: Iterable[str] | Mapping[str, bool] | None = None,
        patience: float = 5.0,
        queues: Mapping[str, str] | None = None,
    ) -> None:
        self._memory = Client(agents=agents, patience=patience, queues=queues)
        self._portal = self._open()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, *, metrics: CollectorRegistry | None = None) -> Self:  # noqa: ARG003 - as the real one
        """A client of its own, whatever the environment names."""
        made = cls()
        backends = made._memory._backends  # noqa: SLF001 - its own
        backends.enqueued = None if metrics is None else jobs_enqueued(metrics)
        return made

    def close(self) -> None:
        """End the event loop; the next call begins another one, over the same jobs."""
        self._portal.close()
        self._portal = self._open()

    def script(
        self, agent: str, *, events: Iterable[AnyEvent] = (), result: Any = UNSET, raises: Raises | None = None
    ) -> None:
        """See `Client.script`."""
        self._ask(lambda memory: memory.script(agent, events=events, result=result, raises=raises))

    def start(self, job: AnyJob) -> None:
        """See `Client.start`."""
        self._ask(lambda memory: memory.start(job))

    def emit(self, job: AnyJob, type: str, data: Any = None, *, ns: Sequence[str] = ()) -> Event:  # noqa: A002 - the event's
        """See `Client.emit`."""
        return self._ask(lambda memory: memory.emit(job, type, data, ns=ns))

    def finish(self, job: AnyJob, result: Any = None, *, raises: Raises | None = None) -> None:
        """See `Client.finish`."""
        self._ask(lambda memory: memory.finish(job, result, raises=raises))

    def play(self, job: AnyJob) -> None:
        """See `Client.play`."""
        self._ask(lambda memory: memory.play(job))

    @property
    def enqueued(self) -> list[Enqueued]:
        """See `Client.enqueued`."""
        return self._memory.enqueued

    @property
    def resumed(self) -> list[Resumed]:
        """See `Client.resumed`."""
        return self._memory.resumed

    def assert_enqueued(self, agent: str | None = None, *, count: int | None = None, **fields: Any) -> list[Enqueued]:
        """See `Client.assert_enqueued`."""
        return self._memory.assert_enqueued(agent, count=count, **fields)

    def assert_nothing_enqueued(self) -> None:
        """See `Client.assert_nothing_enqueued`."""
        self._memory.assert_nothing_enqueued()

    def _open(self) -> Portal[threadline.client.Client]:
        memory = self._memory  # not self: the portal must not keep its client alive
        return Portal(lambda: memory, threadline.client.Client.aclose)

    def _ask(self, do: Callable[[Client], T]) -> T:
        """In the loop's thread, where those are that wait for the change."""

        async def ask(client: threadline.client.Client) -> T:
            return do(cast("Client", client))

        return self._portal.call(ask)

    def _lend(self, connection: Connection[Any]) -> Lent:
        """Anything will do (a test may run on another database): it is recorded, not used."""
        return _Unused(connection)


class _Unused(Lent):
    def __init__(self, connection: Any) -> None:  # no check, so not super().__init__
        self.connection = connection

    def serve(self) -> None:
        """Nothing is asked."""

    def withdraw(self) -> None:
        """Nothing is asked."""


class _MemoryBackends(Backends):
    def __init__(self, stage: Stage, queues: Mapping[str, str]) -> None:  # no servers, so not super().__init__
        self.settings = ClientSettings(queues=as_queue_map(queues))
        self.keys = self.settings.keys
        self.redis = self.log = None
        self.ledger = MemoryLedger(stage)
        self.database = self.ledger.database


class _Recorder(Submission):
    """Keeps what was asked for, once it was accepted."""

    def __init__(self, backends: Backends, announcer: Announcer, enqueued: list[Enqueued]) -> None:
        super().__init__(backends, announcer)
        self._enqueued = enqueued

    async def submit(
        self, request: JobRequest, *, made_up_thread: bool, connection: AsyncConnection[Any] | None
    ) -> tuple[str, str]:
        stored = await super().submit(request, made_up_thread=made_up_thread, connection=connection)
        if stored[0] == request.job_id:  # not the job that the key already named
            given = connection.connection if isinstance(connection, _Unused) else connection
            # As it was asked for: what the caller makes of its dicts later is not what was enqueued.
            asked = copy.deepcopy(msgspec.structs.asdict(request))
            self._enqueued.append(Enqueued(**asked, connection=given))
        return stored


def _agents(agents: Iterable[str] | Mapping[str, bool] | None) -> dict[str, bool] | None:
    if agents is None:
        return None
    return dict(agents) if isinstance(agents, Mapping) else dict.fromkeys(agents, True)


def _job_id(job: AnyJob) -> str:
    return job if isinstance(job, str) else job.job_id
