"""Store put, get and search per second: through an agent's backend with its fence, against AsyncPostgresStore bare.

`PYTHONPATH=tests python -m bench.memory [FILES]`. One JSON line. `write` is the backend's, which reads the file first;
`put` and `get` are the run's store alone. 20 calls are under way at once; a user has 100 files.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.postgres.aio import AsyncPostgresStore

from bench.figures import say
from support.desk import Desk, desk_on
from support.servers import test_servers
from threadline.contract.keys import Keys
from threadline.encryption.vault import PLAIN
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all
from threadline_worker.checkpoints import Fence
from threadline_worker.memory import threadline_backend, user_namespace
from threadline_worker.memory.index import set_up_index, store_config
from threadline_worker.memory.settings import MemorySettings
from threadline_worker.memory_store import FencedStore, StoreConfig

_AT_ONCE = 20
_FILES = 100
_TEXT = "The customer ordered a green teapot and asked for delivery on a Monday morning. " * 10


async def _per_second(count: int, act: Callable[[int], Awaitable[Any]]) -> int:
    """Calls per second, `_AT_ONCE` of them at a time."""
    numbers = iter(range(count))

    async def one_by_one() -> None:
        for n in numbers:
            await act(n)

    began = time.perf_counter()
    await asyncio.gather(*(one_by_one() for _ in range(_AT_ONCE)))
    return round(count / (time.perf_counter() - began))


async def _of_store(store: BaseStore, namespace: tuple[str, ...], count: int) -> dict[str, int]:
    value = {"content": _TEXT, "encoding": "utf-8"}
    return {
        "put": await _per_second(count, lambda n: store.aput(namespace, f"/{n % _FILES}.md", value)),
        "get": await _per_second(count, lambda n: store.aget(namespace, f"/{n % _FILES}.md")),
        "search": await _per_second(count // 10, lambda n: store.asearch(namespace, query=f"teapot {n}", limit=10)),
    }


async def _of_backend(store: FencedStore, count: int) -> dict[str, int]:
    backend = threadline_backend("/memories/=user:rw")
    found: dict[str, int] = {}

    async def node(_state: Any) -> dict[str, Any]:
        found["write"] = await _per_second(count, lambda n: backend.awrite(f"/memories/{n % _FILES}.md", _TEXT))
        found["read"] = await _per_second(count, lambda n: backend.aread(f"/memories/{n % _FILES}.md"))
        found["grep"] = await _per_second(count // 50, lambda _: backend.agrep("teapot", "/memories/"))
        return {}

    graph: Any = StateGraph(dict)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    await graph.compile(store=store).ainvoke({}, {"configurable": {"user_id": "u"}})
    return found


async def _measure(desk: Desk, count: int) -> dict[str, Any]:
    claim = await desk.claim("t")
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    settings = MemorySettings(embeddings="offline")
    await set_up_index(desk.checkpoints, desk.keys, settings, PLAIN)
    indexed, _ = await store_config(desk.checkpoints, desk.keys, settings, PLAIN)
    bare = AsyncPostgresStore(desk.checkpoints.pool)
    stores = {
        "fenced": FencedStore(desk.checkpoints.pool, fence, desk.queries, StoreConfig()),
        "fenced_and_indexed": FencedStore(desk.checkpoints.pool, fence, desk.queries, indexed),
    }
    names = {name: user_namespace("memories", user_id=f"{name} alone") for name in ("bare", *stores)}
    figures: dict[str, Any] = {"bare": await _of_store(bare, names["bare"], count)}
    for name, store in stores.items():
        figures[name] = await _of_store(store, names[name], count)
    figures["backend"] = await _of_backend(stores["fenced"], count)
    for store in (bare, *stores.values()):
        if store._task is not None:
            store._task.cancel()
    return figures


async def _run(url: str, count: int) -> None:
    async with Database(url, application_name="bench") as database:
        await migrate_all(database, Keys())
    async with desk_on(url) as desk:
        say("memory", calls=count, **await _measure(desk, count))


def main(count: int) -> None:
    """Servers of its own."""
    with test_servers() as urls:
        asyncio.run(_run(urls.database_url, count))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
