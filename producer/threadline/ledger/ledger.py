"""What producers ask of the ledger: one statement a call, and an answer for every way it can end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from threadline.contract.codec import dumps
from threadline.contract.job import JobRequest, JobStatus
from threadline.contract.queues import DEFAULT_QUEUE
from threadline.contract.states import OnBusy, State
from threadline.encryption.rows import opened_job, sealed_json, sealed_options
from threadline.encryption.vault import PLAIN, Vault
from threadline.errors import InvalidJob, JobNotFound, ThreadBusy, ThreadMovedOn, ThreadOwnedByAnother, UnknownAgent
from threadline.ledger.database import Database, Row, speaking
from threadline.ledger.lent import Lent
from threadline.ledger.sql import Queries

__all__ = ["Enqueued", "Ledger", "Snapshot", "status_of"]


class Enqueued(NamedTuple):
    """What became of an enqueue: a new job (`created`) or the one that the idempotency key already named.

    `head` says that the caller shall put the message `(epoch, dispatch_n)` into the `queue` after the commit.
    """

    job_id: str
    thread_id: str
    state: State
    epoch: int
    created: bool
    head: bool
    dispatch_n: int
    queue: str = DEFAULT_QUEUE


class Snapshot(NamedTuple):
    """A job's status with what it gave or asks."""

    status: JobStatus
    result: Any
    interrupts: list[dict[str, Any]]


class Ledger:
    """The producer's half; the worker's is `threadline.ledger.custody`.

    What users and agents say is sealed by `vault`; every call that reads it raises CannotDecrypt where that cannot.
    """

    def __init__(
        self, database: Database, queries: Queries, *, lease_seconds: float = 15.0, vault: Vault = PLAIN
    ) -> None:
        self.database = database
        self.queries = queries
        self.lease_seconds = lease_seconds
        self.vault = vault

    def opened(self, row: Mapping[str, Any], job_id: str | None = None) -> Row:
        """A row of jobs as it was before it was sealed (`job_id`: if the row has none). Raises CannotDecrypt."""
        return opened_job(self.vault, row, job_id)

    async def enqueue(
        self,
        request: JobRequest,
        *,
        fingerprint: str,
        dispatching: bool,
        connection: AsyncConnection[Any] | Lent | None = None,
        check_agent: bool = True,
    ) -> Enqueued:
        """One insert (L2), in the caller's transaction if a connection is given (L3).

        Raises InvalidJob, UnknownAgent, ThreadBusy, ThreadOwnedByAnother, BackendUnavailable, NotMigrated.
        """
        params = {
            "job_id": request.job_id,
            "thread_id": request.thread_id,
            "user_id": request.user_id,
            "agent": request.agent,
            "input": sealed_json(self.vault, "input", request.input, request.job_id),
            "options": dumps(sealed_options(self.vault, request.options(), request.thread_id)).decode(),
            "metadata": sealed_json(self.vault, "metadata", request.metadata, request.job_id),
            "idempotency_key": request.idempotency_key,
            "on_busy": str(request.on_busy),
            "run_at": request.run_at,
            "expires": request.expires,
            "timeout": request.timeout,
            # A lease of 0 counts no worker as alive: the agent is not looked at (adopted messages are judged at claim).
            "lease_seconds": self.lease_seconds if check_agent else 0.0,
            "text_input": isinstance(request.input, str),
            "dispatching": dispatching,
        }
        row: Row | None = None
        for told in self.vault.fingerprints(fingerprint):
            params["fingerprint"] = told
            if connection is None:
                row = await self.database.row(self.queries["enqueue"], params)
            else:
                row = await self._enqueue_within(connection, params)
            if row is None or row["outcome"] != "different":
                break  # else the first request may have come under an earlier key
        assert row is not None  # noqa: S101 - the function always returns one row
        return await self._judge(row, request)

    async def _enqueue_within(self, connection: AsyncConnection[Any] | Lent, params: dict[str, Any]) -> Row | None:
        """L3: a savepoint, so that a refused job does not spoil the caller's transaction."""
        if isinstance(connection, Lent):
            return await connection.row(self.queries["enqueue"], params)
        if not isinstance(connection, AsyncConnection):
            raise InvalidJob(
                f"connection= is a {type(connection).__name__}: give a psycopg (3) AsyncConnection, or use"
                " threadline.sync with a Connection"
            )
        async with speaking(self.database.limit):
            if not connection.autocommit:
                # psycopg commits a block that it had to begin itself: let the caller's transaction begin before it.
                await connection.cursor(row_factory=dict_row).execute("SELECT")
            async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(self.queries["enqueue"], params)
                return await cursor.fetchone()

    async def _judge(self, row: Row, request: JobRequest) -> Enqueued:
        match row["outcome"]:
            case "created" | "existing":
                return Enqueued(
                    job_id=row["job_id"],
                    thread_id=row["thread_id"],
                    state=State(row["state"]),
                    epoch=row["epoch"],
                    created=row["outcome"] == "created",
                    head=bool(row["head"]),
                    dispatch_n=row["dispatch_n"] or 0,
                    queue=request.in_queue,
                )
            case "different" if request.idempotency_key is None:
                raise InvalidJob(f"job id {request.job_id} is taken by another request")
            case "different":
                raise InvalidJob(
                    f"idempotency key {request.idempotency_key!r} was used for another request (job {row['job_id']})"
                )
            case "owned_by_another":
                raise ThreadOwnedByAnother(f"thread {request.thread_id} belongs to another user")
            case "busy":
                raise ThreadBusy(
                    f"thread {request.thread_id} is busy: job {row['job_id']} is {row['state']}", job_id=row["job_id"]
                )
            case "no_text_input":
                raise InvalidJob(f"agent {request.agent} has no `messages`: give its input as a dict, not as text")
            case _:
                raise UnknownAgent(await self._unknown(request.agent))

    async def _unknown(self, agent: str) -> str:
        rows = await self.database.rows(self.queries["agent_names"], {"lease_seconds": self.lease_seconds})
        known = ", ".join(row["name"] for row in rows) or "none"
        return f"no live worker runs the agent {agent!r}; known: {known}"

    async def undispatch(self, job_id: str, dispatch_n: int) -> None:
        """The message could not be sent: any worker's sweep sends it."""
        await self.database.rows(self.queries["undispatch"], {"job_id": job_id, "dispatch_n": dispatch_n})

    async def snapshot(self, job_id: str, *, user_id: str | None = None) -> Snapshot:
        """A job as it stands. Raises JobNotFound, ThreadOwnedByAnother if `user_id` is given and not its owner."""
        row = await self.database.row(self.queries["status"], {"job_id": job_id})
        if row is None:
            raise JobNotFound(f"no job {job_id} is known: check the id, or it was pruned")
        _check_owner(row, user_id)
        row = self.opened(row)
        return Snapshot(status_of(row), row["result"], row["interrupts"] or [])

    async def jobs(
        self,
        *,
        state: State | None = None,
        thread_id: str | None = None,
        user_id: str | None = None,
        queue: str | None = None,
        limit: int = 50,
    ) -> list[JobStatus]:
        """Jobs that match, newest first."""
        matching = {"state": state and str(state), "thread_id": thread_id, "user_id": user_id, "queue": queue}
        rows = await self.database.rows(self.queries["jobs"], {**matching, "limit": limit})
        return [status_of(self.opened(row)) for row in rows]

    async def cancel(self, job_id: str, *, user_id: str | None = None, rollback: bool = False) -> JobStatus:
        """Queued ends at once, running is asked to, ended is a no-op (L8). Raises JobNotFound, ThreadOwnedByAnother."""
        await self.snapshot(job_id, user_id=user_id)
        await self.database.rows(self.queries["cancel"], {"job_id": job_id, "rollback": rollback})
        return (await self.snapshot(job_id)).status

    async def retry(self, job_id: str, *, user_id: str | None = None) -> JobStatus:
        """Continue a failed or cancelled job (L7). Raises JobNotFound, ThreadMovedOn, InvalidJob."""
        await self.snapshot(job_id, user_id=user_id)
        row = await self.database.row(self.queries["retry"], {"job_id": job_id})
        status = (await self.snapshot(job_id)).status
        if row is None or row["outcome"] == "not_ended":
            raise InvalidJob(f"job {job_id} is {status.state}: only failed and cancelled jobs can be retried")
        if row["outcome"] == "moved_on":
            raise ThreadMovedOn(f"a later job of thread {status.thread_id} has started: enqueue a new one instead")
        return status

    async def redeliver(self, job_id: str, *, user_id: str | None = None) -> JobStatus:
        """Make the webhook of the latest end due again. Raises JobNotFound, InvalidJob, ThreadOwnedByAnother."""
        await self.snapshot(job_id, user_id=user_id)
        if await self.database.row(self.queries["webhook_again"], {"job_id": job_id}) is None:
            raise InvalidJob(f"job {job_id} has nothing to report: it has no webhook_url, or it has not ended")
        return (await self.snapshot(job_id)).status


def status_of(row: Row) -> JobStatus:
    """A row of queries/status.sql or jobs.sql, opened, as the public JobStatus."""
    state = State(row["state"])
    failed = row["code"] is not None and state in {State.FAILED, State.CANCELLED}
    return JobStatus(
        job_id=row["job_id"],
        thread_id=row["thread_id"],
        user_id=row["user_id"],
        agent=row["agent"],
        state=state,
        epoch=row["epoch"],
        worker_id=row["worker_id"],
        failures=row["failures"],
        stalls=row["stalls"],
        error={"code": row["code"], "message": row["message"] or ""} if failed else None,
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        metadata=row["metadata"],
        webhook=row["webhook"],
        queue=row["queue"],
        worker_version=row["worker_version"],
        agent_fingerprint=row["agent_fingerprint"],
    )


def _check_owner(row: Row, user_id: str | None) -> None:
    if user_id is not None and row["user_id"] != user_id:
        raise ThreadOwnedByAnother(f"job {row['job_id']} belongs to another user")


def on_busy(value: str) -> OnBusy:
    """Read the option. Raises InvalidJob."""
    try:
        return OnBusy(value)
    except ValueError as error:
        raise InvalidJob(f"on_busy={value!r}: use enqueue, reject, interrupt or rollback") from error
