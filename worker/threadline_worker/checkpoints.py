"""A saver per run: every write commits only while the ledger still gives this job, epoch and worker the thread (F1).

The check is the last statement before Sync, in the same implicit transaction as the write: a worker that is stopped
while it serialises or sends holds no lock on its ledger row, and its write still commits only if the check passes.
Reads are not fenced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import langgraph.checkpoint.base.id as checkpoint_clock
import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg import AsyncCursor, errors
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from threadline.encryption.vault import PLAIN, Vault
from threadline.ledger.database import refused
from threadline.ledger.sql import Queries
from threadline.refusals import said_by
from threadline_worker.encrypted_checkpoints import SealingSaver

__all__ = [
    "CheckpointsAway",
    "CheckpointsRefused",
    "Commit",
    "Fence",
    "FencedSaver",
    "LeaseLost",
    "fenced",
    "raise_checkpoint_clock",
]

#: A call on a connection that nobody answers any more ends after so long.
CALL_SECONDS = 60.0
#: The SQLSTATE that assert_fence raises (ledger/schema).
FENCE_STATE = "LF001"


#: No disk or memory left; an error of its files. 53300, too many connections, is a connection that cannot be had.
_REFUSED_STATES = ("531", "532", "534", "58")
#: Also the tables themselves: they were there when the worker began.
_REFUSED = (
    errors.InsufficientPrivilege,
    errors.ReadOnlySqlTransaction,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
)
_OF_ALL = (*_REFUSED, errors.DiskFull)


class LeaseLost(RuntimeError):  # noqa: N818 - the field's term
    """The ledger gave this job, or its thread, to someone else: stop, and change nothing."""


class CheckpointsAway(RuntimeError):  # noqa: N818 - a state of the world, not of the job
    """The connection to Postgres was lost, or cannot be had: the job goes on from its last checkpoint later."""


class CheckpointsRefused(CheckpointsAway):
    """Postgres answers and refuses what no job has asked for: a full disk, a standby, a right that was taken away.

    `of_all`: it can only be everybody; else it may also be what this job writes or where its thread stands.
    """

    def __init__(self, says: str, *, of_all: bool) -> None:
        super().__init__(says)
        self.of_all = of_all


class Fence(NamedTuple):
    """What every write is checked against."""

    job_id: str
    thread_id: str
    epoch: int
    worker_id: str


class Commit(NamedTuple):
    """A checkpoint that is durable. `namespace` is LangGraph's checkpoint_ns, "" for the main graph."""

    namespace: str
    step: int
    checkpoint_id: str
    seconds: float


class FencedSaver(SealingSaver):
    """`on_commit` hears of each checkpoint after its commit, `on_load` of each that is read, with its namespace."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        fence: Fence,
        queries: Queries,
        *,
        on_commit: Callable[[Commit], None] = lambda _commit: None,
        on_load: Callable[[str, CheckpointTuple], None] = lambda _namespace, _found: None,
        serde: SerializerProtocol | None = None,
        vault: Vault = PLAIN,
    ) -> None:
        super().__init__(pool, serde=serde, vault=vault)
        self._fence = fence
        self._check = queries.fill("SELECT {schema}.assert_fence(%s, %s, %s, %s)")
        self._on_commit = on_commit
        self._on_load = on_load

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint, the newest of its namespace if none is named. Not fenced."""
        found = await super().aget_tuple(config)
        if found is not None:
            self._on_load(str(config["configurable"].get("checkpoint_ns", "")), found)
        return found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint. Raises LeaseLost."""
        self._own(config)
        started = time.perf_counter()
        written = await super().aput(config, checkpoint, metadata, new_versions)
        self._on_commit(
            Commit(
                str(config["configurable"].get("checkpoint_ns", "")),
                int(metadata.get("step", -1)),
                checkpoint["id"],
                time.perf_counter() - started,
            )
        )
        return written

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Write a task's results. Raises LeaseLost. LangGraph looks for `task_path` in this very signature."""
        self._own(config)
        await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete the thread's checkpoints. Raises LeaseLost."""
        self._own({"configurable": {"thread_id": thread_id}})
        await super().adelete_thread(thread_id)

    def _own(self, config: RunnableConfig) -> None:
        thread_id = config["configurable"]["thread_id"]
        if thread_id != self._fence.thread_id:
            raise LeaseLost(f"this run may write thread {self._fence.thread_id} only, not {thread_id}")

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        with fenced():
            async with asyncio.timeout(CALL_SECONDS), super()._cursor(pipeline=pipeline) as cursor:
                yield cursor
                if pipeline:
                    await cursor.execute(self._check, self._fence)


@contextmanager
def fenced() -> Iterator[None]:
    """What psycopg raises inside comes out as LeaseLost or CheckpointsAway where it means that."""
    try:
        yield
    except TimeoutError as error:
        raise CheckpointsAway(f"Postgres did not answer within {CALL_SECONDS:g} s") from error
    except psycopg.Error as error:
        if error.sqlstate == FENCE_STATE:
            raise LeaseLost(str(error).splitlines()[0]) from error
        if _refused(error):
            raise CheckpointsRefused(str(refused(error)), of_all=isinstance(error, _OF_ALL)) from error
        if _away(error):
            raise CheckpointsAway(said_by(error) or type(error).__name__) from error
        raise


def _away(error: psycopg.Error) -> bool:
    """Whether the connection failed, not the statement: no answer, shut down, restarting, too many connections."""
    if isinstance(error, errors.TransactionTimeout):  # F3: the server ended it, and the connection
        return True
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    state = error.sqlstate
    return state is None or state.startswith(("08", "57P")) or isinstance(error, errors.TooManyConnections)


def _refused(error: psycopg.Error) -> bool:
    """Whether the server would refuse it to every job. A connection that is refused is lost (`_away`)."""
    return isinstance(error, _REFUSED) or (error.sqlstate or "").startswith(_REFUSED_STATES)


def raise_checkpoint_clock(newest: str | None) -> None:
    """F4: checkpoint ids come from this machine's clock, the head is the highest: never make one below `newest`.

    LangGraph keeps its clock in a module global that only ever rises; so do we.
    """
    if newest is None:
        return
    ticks = checkpoint_clock.UUID(newest).time
    clock: Any = checkpoint_clock
    # The only way to raise it; a test holds it.
    clock._last_v6_timestamp = max(clock._last_v6_timestamp or 0, ticks)  # noqa: SLF001
