"""Keeps what a state update writes until all of it is known, and commits it in one transaction with the fence (F1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from psycopg_pool import AsyncConnectionPool

from threadline_worker.checkpoints import CALL_SECONDS, FencedSaver, fenced
from threadline_worker.encrypted_checkpoints import SealingSaver

__all__ = ["AtomicSaver"]

Write = Callable[[SealingSaver], Coroutine[Any, Any, Any]]


class AtomicSaver(FencedSaver):
    """For `aupdate_state`, which reads first and writes then, in several calls; it never reads what it wrote."""

    _kept: tuple[Write, ...] = ()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint. Raises LeaseLost for another thread's."""
        self._own(config)
        self._kept += (lambda saver: saver.aput(config, checkpoint, metadata, new_versions),)
        named = {name: config["configurable"][name] for name in ("thread_id", "checkpoint_ns")}
        return {"configurable": {**named, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep a task's results. LangGraph looks for `task_path` in this very signature."""
        self._own(config)
        self._kept += (lambda saver: saver.aput_writes(config, writes, task_id, task_path),)

    async def commit(self) -> None:
        """Write what was kept. Raises LeaseLost, CheckpointsAway; then nothing of it is there."""
        pool = cast("AsyncConnectionPool[Any]", self.conn)  # what it was made with
        with fenced():
            async with asyncio.timeout(CALL_SECONDS), pool.connection() as connection, connection.transaction():
                unfenced = SealingSaver(connection, serde=self.serde, vault=self._vault)
                for write in self._kept:
                    await write(unfenced)
                await connection.execute(self._check, self._fence)
