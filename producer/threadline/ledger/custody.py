"""What workers ask of the ledger: every write to a job compares job, epoch and worker; no row is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg import errors

from threadline.contract.codec import dumps
from threadline.contract.queues import DEFAULT_QUEUE
from threadline.contract.states import Code, State
from threadline.encryption import places
from threadline.encryption.rows import opened_options, sealed_json, sealed_message
from threadline.ledger.database import Row
from threadline.ledger.ledger import Ledger

__all__ = ["Claim", "Custody", "Due"]

#: The index of schema/0001_ledger.sql that lets at most one job of a thread run.
_ONE_RUNNING: Final = "jobs_one_running"


class Claim(NamedTuple):
    """A job in a worker's hands: the fence's four values, and what is needed to run it."""

    job_id: str
    thread_id: str
    epoch: int
    worker_id: str
    user_id: str
    agent: str
    kind: str
    input: Any
    options: dict[str, Any]
    metadata: dict[str, Any]
    failures: int
    timeout_seconds: float | None
    running_seconds: float
    waited_seconds: float
    pickup_seconds: float | None
    newest_at_claim: str | None
    row: Row

    @property
    def first(self) -> bool:
        """Whether no worker had the job before (not epoch 1: it may have been cancelled in the queue and retried)."""
        return self.row["previous_worker"] is None


class Due(NamedTuple):
    """A dispatch: which message to put into which queue."""

    job_id: str
    epoch: int
    n: int
    queue: str


class Custody(Ledger):
    """The worker's half of the ledger. Rows come as they are stored: `opened(row)` and `unsealed(claim)` read them."""

    def unsealed(self, claim: Claim) -> Claim:
        """The claim with its input, options and metadata as they were given. Raises CannotDecrypt."""
        if self.vault.on and claim.input is None:
            self.vault.refuse_plain(places.job("input", claim.job_id))
        row = self.opened({name: getattr(claim, name) for name in ("job_id", "input", "metadata")})
        options = opened_options(self.vault, claim.options, claim.thread_id)
        return claim._replace(input=row["input"], metadata=row["metadata"], options=options)

    async def claim(self, job_id: str, worker_id: str) -> Claim | Row | None:
        """A Claim; or the row of a job that ended instead (cancel pending, expired); or None: not claimed."""
        try:
            row = await self.database.row(
                self.queries["claim"], {"job_id": job_id, "worker_id": worker_id, "lease_seconds": self.lease_seconds}
            )
        except errors.UniqueViolation as error:
            if error.diag.constraint_name != _ONE_RUNNING:
                raise
            return None  # another job of the thread runs
        if row is None or row["state"] != State.RUNNING:
            return row
        return Claim(
            worker_id=worker_id,
            row=row,
            **{name: row[name] for name in Claim._fields if name not in {"worker_id", "row"}},
        )

    async def unfinished(self, queues: Sequence[str]) -> bool:
        """Whether anything of these queues runs, or will be claimed without anybody's doing."""
        row = await self.database.row(self.queries["unfinished"], {"queues": list(queues)})
        return row is not None and bool(row["unfinished"])

    async def finish(
        self,
        claim: Claim,
        state: State,
        *,
        code: str | None = None,
        message: str | None = None,
        result: Any = None,
        interrupts: list[dict[str, Any]] | None = None,
        log_top: str | None = None,
    ) -> Row | None:
        """End the job. None: it is no longer ours, and nothing was changed.

        `log_top` is the last position that was given to an event. A pending cancel may make the end `cancelled`.
        """
        return await self.database.row(
            self.queries["finish"],
            {
                **_own(claim),
                "state": str(state),
                "code": _text(code),
                "message": sealed_message(self.vault, _text(message), claim.job_id),
                "result": None if result is None else sealed_json(self.vault, "result", result, claim.job_id),
                "interrupts": None
                if interrupts is None
                else sealed_json(self.vault, "interrupts", interrupts, claim.job_id),
                "log_top": log_top,
                "wait_expires": claim.options.get("wait_expires"),
            },
        )

    async def release(
        self,
        claim: Claim,
        code: str,
        *,
        message: str | None = None,
        failure: bool = False,
        delay: float = 0.0,
        limit: int = 3,
        log_top: str | None = None,
    ) -> Row | None:
        """Give the job back; `failure` charges it, and the `limit`th failure ends it. None: it is no longer ours."""
        said = sealed_message(self.vault, _text(message), claim.job_id)
        params = {"code": code, "message": said, "failure": failure, "delay": delay, "limit": limit}
        params["log_top"] = log_top
        return await self.database.row(self.queries["release"], {**_own(claim), **params})

    async def release_lost(self, job_id: str, epoch: int, worker_id: str) -> Row | None:
        """L6: a claim whose answer was lost goes back without a charge."""
        params = {"job_id": job_id, "epoch": epoch, "worker_id": worker_id, "code": Code.LOST_CLAIM, "message": None}
        return await self.database.row(
            self.queries["release"], {**params, "failure": False, "delay": 0.0, "limit": 1, "log_top": None}
        )

    async def note_checkpoint(
        self,
        claim: Claim,
        checkpoint_id: str | None,
        *,
        fingerprint: str | None = None,
        structure: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record which checkpoint this epoch goes on from, and in which graph. False: the job is no longer ours.

        `structure` describes the graph; it is sent only where the ledger lacks it.
        """
        params = {**_own(claim), "checkpoint_id": checkpoint_id, "fingerprint": fingerprint, "structure": None}
        row = await self.database.row(self.queries["progress"], params)
        if row is not None and not row["known"] and structure is not None:
            params["structure"] = dumps(structure).decode()
            row = await self.database.row(self.queries["progress"], params)
        return row is not None

    async def graph(self, fingerprint: str) -> Any:
        """The structure of a graph that jobs were left with; None: not known."""
        row = await self.database.row(self.queries["graph"], {"fingerprint": fingerprint})
        return None if row is None else row["structure"]

    async def leave_to(self, claim: Claim, fingerprint: str) -> bool:
        """Keep the job for workers with this graph. False: none lives, or the job is no longer ours."""
        params = {**_own(claim), "fingerprint": fingerprint, "lease_seconds": self.lease_seconds}
        return await self.database.row(self.queries["leave_to"], params) is not None

    async def lift_epoch(self, claim: Claim, above: int) -> Claim | None:
        """P3: raise the epoch above the log's. None: the job is no longer ours."""
        row = await self.database.row(self.queries["lift_epoch"], {**_own(claim), "above": above})
        return None if row is None else claim._replace(epoch=row["epoch"], row={**claim.row, "epoch": row["epoch"]})

    async def dispatch_due(self, *, thread_id: str | None = None, limit: int = 200) -> list[Due]:
        """L4: mark due heads of threads (or of one thread) as dispatched; the caller puts them into the queue."""
        query = "dispatch_due" if thread_id is None else "dispatch_due_of_thread"
        rows = await self.database.rows(self.queries[query], {"thread_id": thread_id, "limit": limit})
        return [Due(row["job_id"], row["epoch"], row["dispatch_n"], row["queue"]) for row in rows]

    async def dispatched_long_ago(
        self, seconds: float, queues: Sequence[str] = (DEFAULT_QUEUE,), *, limit: int = 200
    ) -> list[Due]:
        """L4: dispatches that should have been taken by now, at most `limit` of each queue.

        The caller looks whether the queue still has them.
        """
        params = {"seconds": seconds, "queues": list(queues), "limit": limit}
        rows = await self.database.rows(self.queries["dispatched_long_ago"], params)
        return [Due(row["job_id"], row["epoch"], row["dispatch_n"], row["queue"]) for row in rows]

    async def expire(self, *, limit: int = 200) -> list[Row]:
        """End queued jobs that were not started in time."""
        return await self.database.rows(self.queries["expire"], {"limit": limit})

    async def enforce_deadlines(self, default: float, *, grace: float) -> list[Row]:
        """V4: end running jobs that are past their deadline by `grace` seconds."""
        return await self.database.rows(self.queries["enforce_deadlines"], {"default": default, "grace": grace})

    async def unannounced(self, seconds: float, *, limit: int = 100) -> list[Row]:
        """P1: transitions older than `seconds` whose event nobody has published."""
        return await self.database.rows(self.queries["unannounced"], {"seconds": seconds, "limit": limit})

    async def transition(self, job_id: str) -> Row | None:
        """The row that a job's latest event is rebuilt from."""
        return await self.database.row(self.queries["transition"], {"job_id": job_id})

    async def announced(self, job_id: str, epoch: int) -> None:
        """The event of this epoch is in the log."""
        await self.database.rows(self.queries["announced"], {"job_id": job_id, "epoch": epoch})

    async def restore(self, thread_id: str | None = None) -> str | None:
        """O4, T2: bring a thread whose rollback is half done back to where it was, in one transaction.

        Any worker may repeat it. The thread's id; None: there is none (or none of that id), or somebody is at it.
        """
        async with self.database.connection() as connection, connection.transaction():
            # Somebody may hold the thread's checkpoints: then another thread's turn comes first.
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            cursor = await connection.execute(self.queries["restoring"], {"thread_id": thread_id})
            if (found := await cursor.fetchone()) is None:
                return None
            if found["heads"] is not None:
                params = {**found, "heads": dumps(found["heads"]).decode()}
                for query in ("restore_checkpoints", "restore_writes", "restore_saved", "restore_blobs"):
                    await connection.execute(self.queries[query], params)
            await connection.execute(self.queries["restored"], found)
        return str(found["thread_id"])

    async def dead_letter(self, message_id: str, reason: str, body: bytes | None) -> None:
        """Keep a message that can never become a job where `doctor` shows it."""
        sealed = None if body is None else self.vault.seal_bytes(body, places.dead_letter("body", message_id))
        why = self.vault.seal_words(reason, places.dead_letter("reason", message_id))
        params = {"message_id": message_id, "reason": why, "body": sealed}
        await self.database.rows(self.queries["dead_letter"], params)

    async def gauges(self) -> Row:
        """The contract's gauges about the whole queue."""
        row = await self.database.row(self.queries["queue_gauges"], {"lease_seconds": self.lease_seconds})
        return row or {}


def _text(value: str | None) -> str | None:
    """What an exception said, as Postgres' text can hold it: without NUL and lone surrogates."""
    return value and value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _own(claim: Claim) -> dict[str, Any]:
    return {"job_id": claim.job_id, "epoch": claim.epoch, "worker_id": claim.worker_id}
