"""A thread of 500 turns before and after its compaction; a user with 1,000 threads pruned, then deleted.

`PYTHONPATH=tests python -m bench.retention [TURNS [THREADS]]`. One JSON line, with one real worker. Bytes are those of
the thread's rows (pg_column_size, as they are stored). A turn is a question of 200 and an answer of 800 characters;
`plain` keeps messages as LangGraph's `add_messages` does, `delta` in a delta channel as deepagents do.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer

from bench.figures import say
from support.chaos_processes import package_roots
from support.desk import LedgerView
from support.servers import test_servers
from support.workers import Workers
from threadline import Client
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all

_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
_QUESTION, _ANSWER = "Is the teapot green, or is it blue? " * 6, "It is as green as it was on the day before. " * 18


class _Delta(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


async def _reply(_state: Any) -> dict[str, Any]:
    return {"messages": [AIMessage(_ANSWER)]}


def _chat(state: Any) -> Any:
    graph: Any = StateGraph(state)
    graph.add_node("reply", _reply)
    graph.add_edge(START, "reply")
    graph.add_edge("reply", END)
    return graph


plain, delta = _chat(MessagesState), _chat(_Delta)


def _size(view: LedgerView, thread: str) -> dict[str, int]:
    rows, size = 0, 0
    for table in _TABLES:
        [row] = view.rows(
            f"SELECT count(*) AS n, coalesce(sum(pg_column_size(t.*)), 0) AS b FROM {table} AS t WHERE thread_id = %s",
            thread,
        )
        rows, size = rows + int(row["n"]), size + int(row["b"])
    return {"rows": rows, "kib": round(size / 1024)}


async def _long_thread(client: Client, view: LedgerView, agent: str, turns: int) -> dict[str, Any]:
    for turn in range(turns):
        message = {"role": "user", "content": f"{turn}: {_QUESTION}"}
        job = await client.enqueue(agent, {"messages": [message]}, thread_id=agent, user_id="long")
        await job.result(timeout=60)
    before = _size(view, agent)
    began = time.perf_counter()
    pruned = await client.prune(older_than=0)
    took = time.perf_counter() - began
    if (pruned.compacted, pruned.failed) != (1, 0):
        raise RuntimeError(f"not compacted: {pruned}")
    messages = len((await client.state(agent))["values"]["messages"])
    return {"before": before, "after": _size(view, agent), "seconds": round(took, 2), "messages": messages}


async def _many_threads(client: Client, threads: int) -> dict[str, Any]:
    given = {"messages": [{"role": "user", "content": _QUESTION}]}
    jobs = [await client.enqueue("delta", given, user_id="many") for _ in range(threads)]
    for job in jobs:
        await job.result(timeout=300)
    began = time.perf_counter()
    pruned = await client.prune(older_than=0)
    compacted = time.perf_counter()
    deleted = await client.delete_user("many")
    return {
        "threads": threads,
        "compacted": pruned.compacted,
        "compact_seconds": round(compacted - began, 2),
        "delete_user_seconds": round(time.perf_counter() - compacted, 2),
        "left": sum(deleted.left.values()),
    }


async def _measure(url: str, redis_url: str, turns: int, threads: int) -> dict[str, Any]:
    view = LedgerView(url)
    async with Client(redis_url=redis_url, database_url=url) as client:
        found: dict[str, Any] = {"turns": turns}
        for agent in ("plain", "delta"):
            found[agent] = await _long_thread(client, view, agent, turns)
        return {**found, "user": await _many_threads(client, threads)}


def main() -> None:
    turns, threads = (int(text) for text in [*sys.argv[1:], "500", "1000"][:2])
    with test_servers() as servers, tempfile.TemporaryDirectory() as gates:

        async def migrated() -> None:
            async with Database(servers.database_url, application_name="bench", limit=60) as database:
                await migrate_all(database, Keys())

        asyncio.run(migrated())
        env = {
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": servers.database_url,
            "PYTHONPATH": ":".join([*package_roots(), str(Path(__file__).parents[1])]),
            "THREADLINE_AGENTS": "plain=bench.retention:plain,delta=bench.retention:delta",
            "THREADLINE_MODEL": "offline",
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
            "TEST_GATES": gates,
        }
        with Workers(env) as workers:
            workers.start()
            say("retention", **asyncio.run(_measure(servers.database_url, servers.redis_url, turns, threads)))


if __name__ == "__main__":
    main()
