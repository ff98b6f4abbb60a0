"""What a job leaves in Redis and in Postgres: research with the offline model, and a deep agent with 80 tool calls.

`PYTHONPATH=tests python -m bench.sizing [JOBS]`. One JSON line, with one real worker. Redis: MEMORY USAGE of a job's
log, with `updates` alone and with every token besides. Postgres: bytes of the thread's rows as they are stored, and
what all tables and indexes of the schema grew by.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis
from deepagents import create_deep_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool

from bench.figures import say
from support.chaos_processes import package_roots
from support.desk import LedgerView
from support.servers import test_servers
from support.streamed import Scripted
from support.workers import Workers
from threadline import Client
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all

__all__ = ["eighty"]

_CALLS: Final = 80
_TABLES: Final = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
_MODES: Final = {"updates": ["updates"], "tokens": ["updates", "messages"]}
_DOCS: Final = Path(__file__).parents[2] / "docs"


class _Caller(Scripted):
    """Looks 80 times, then says that it has."""

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_more: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        made = sum(isinstance(message, ToolMessage) for message in messages)
        call = tool_call_chunk(name="look", args='{"n": 1}', id=f"look-{made}", index=0)
        said = {"content": "Looked."} if made >= _CALLS else {"content": "", "tool_call_chunks": [call]}
        chunk = ChatGenerationChunk(message=AIMessageChunk(**said))
        if run_manager:
            await run_manager.on_llm_new_token("", chunk=chunk)
        yield chunk


@tool
async def look(n: int) -> str:
    """Look something up: a page of 2,000 characters."""
    return f"{n} and more. " * 150


eighty = create_deep_agent(_Caller(), tools=[look], system_prompt="You look.", name="eighty")


def _schema_bytes(view: LedgerView) -> int:
    view.rows("VACUUM")
    query = (
        "SELECT sum(pg_total_relation_size(c.oid)) AS b FROM pg_class AS c JOIN pg_namespace AS n"
        " ON n.oid = c.relnamespace WHERE n.nspname = 'threadline' AND c.relkind = 'r'"
    )
    return int(view.rows(query)[0]["b"])


def _thread(view: LedgerView, thread: str) -> dict[str, float]:
    size = sum(
        int(
            view.rows(f"SELECT coalesce(sum(pg_column_size(t.*)), 0) AS b FROM {table} t WHERE thread_id = %s", thread)[
                0
            ]["b"]
        )
        for table in _TABLES
    )
    [row] = view.rows("SELECT count(*) AS n FROM checkpoints WHERE thread_id = %s", thread)
    return {"checkpoints": row["n"], "bytes": size}


class _Kind(NamedTuple):
    """What is asked of whom, and how much of it is told."""

    agent: str
    question: Any
    mode: str


async def _jobs(client: Client, view: LedgerView, url: str, kind: _Kind, jobs: int) -> dict[str, Any]:
    before = _schema_bytes(view)
    with redis.Redis.from_url(url) as connection:
        logs, threads = [], []
        for _ in range(jobs):
            job = await client.enqueue(kind.agent, kind.question, stream_modes=_MODES[kind.mode])
            await job.result(timeout=300)
            key = Keys().events(job.job_id)
            logs.append((connection.xlen(key), connection.memory_usage(key, samples=0)))
            threads.append(_thread(view, job.thread_id))
    events, memory = (statistics.median(values) for values in zip(*logs, strict=True))
    checkpoints = statistics.median(thread["checkpoints"] for thread in threads)
    rows = statistics.median(thread["bytes"] for thread in threads)
    grown = (_schema_bytes(view) - before) / jobs
    return {
        "log": {"events": events, "kib": round(memory / 1024, 1), "bytes_per_event": round(memory / events)},
        "thread": {"checkpoints": checkpoints, "kib": round(rows / 1024)},
        "postgres_kib_per_job": round(grown / 1024),
        "bytes_per_checkpoint": round(grown / checkpoints),
    }


async def _measure(url: str, redis_url: str, jobs: int) -> dict[str, Any]:
    view = LedgerView(url)
    found: dict[str, Any] = {"jobs": jobs}
    looking = _Kind("eighty", {"messages": [{"role": "user", "content": "Look."}]}, "updates")
    async with Client(redis_url=redis_url, database_url=url) as client:
        for mode in _MODES:
            research = _Kind("research", "How are dead workers found?", mode)
            found[f"research, {mode}"] = await _jobs(client, view, redis_url, research, jobs)
        found["80 tool calls"] = await _jobs(client, view, redis_url, looking, max(1, jobs // 5))
    return found


async def _migrated(url: str) -> None:
    async with Database(url, application_name="bench", limit=60) as database:
        await migrate_all(database, Keys())


def main() -> None:
    jobs = int([*sys.argv[1:], "20"][0])
    with test_servers() as servers, tempfile.TemporaryDirectory() as folder:
        asyncio.run(_migrated(servers.database_url))
        env = {
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": servers.database_url,
            "THREADLINE_AGENTS": "eighty=bench.sizing:eighty",
            "THREADLINE_MODEL": "offline",
            "THREADLINE_CORPUS": str(_DOCS),
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
            "THREADLINE_CACHE_DIR": folder,
            "PYTHONPATH": ":".join([*package_roots(), str(Path(__file__).parents[1])]),
            "PATH": "/usr/bin:/bin",
        }
        with Workers(env) as workers:
            workers.start()
            say("sizing", **asyncio.run(_measure(servers.database_url, servers.redis_url, jobs)))


if __name__ == "__main__":
    main()
