"""What encryption costs a super-step: the same graph with and without keys, in pairs, on one Postgres.

`PYTHONPATH=tests python -m bench.encryption [PAIRS]`. One JSON line. A run has 30 super-steps; each writes a scalar, a
list that grows and a dict of about `bytes` bytes, in sync mode through the fenced saver. `seal_event` is an event of
1 KiB, sealed and opened.
"""

from __future__ import annotations

import asyncio
import operator
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from bench.figures import paired, say
from support.desk import Desk, desk_on
from support.servers import test_servers
from threadline.contract.events import Event, decode_event
from threadline.contract.job import new_id
from threadline.contract.keys import Keys
from threadline.encryption.vault import PLAIN, Vault
from threadline.encryption.wire import encoded_event, opened_event
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all
from threadline_worker.checkpoints import Fence, FencedSaver

_STEPS = 30
_SEALED = Vault({"k": bytes(32)})
_SIZES = (1_000, 100_000)


class _State(TypedDict, total=False):
    n: int
    listed: Annotated[list[str], operator.add]
    held: dict[str, str]


def _graph(saver: FencedSaver, size: int) -> Any:
    async def step(state: _State) -> dict[str, Any]:
        n = state.get("n", 0) + 1
        return {"n": n, "listed": [f"step {n}"], "held": {"text": f"{n} " * (size // 3)}}

    graph = StateGraph(_State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if state["n"] >= _STEPS else "step")
    return graph.compile(checkpointer=saver)


async def _run(desk: Desk, vault: Vault, size: int) -> float:
    """Seconds of one super-step."""
    claim = await desk.claim(new_id())
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    graph = _graph(FencedSaver(desk.checkpoints.pool, fence, desk.queries, vault=vault), size)
    began = time.perf_counter()
    await graph.ainvoke(
        {"n": 0}, {"configurable": {"thread_id": claim.thread_id}, "recursion_limit": 100}, durability="sync"
    )
    return (time.perf_counter() - began) / _STEPS


async def _pairs(count: int, act: Callable[[Vault], Awaitable[float]]) -> dict[str, Any]:
    await act(PLAIN)
    await act(_SEALED)
    found = [(await act(PLAIN), await act(_SEALED)) for _ in range(count)]
    return {
        "plain_ms": round(statistics.median(plain for plain, _ in found) * 1000, 3),
        "sealed_ms": round(statistics.median(sealed for _, sealed in found) * 1000, 3),
        "more_ms": paired([(sealed - plain) * 1000 for plain, sealed in found]),
        "ratio": paired([sealed / plain for plain, sealed in found]),
    }


async def _event(vault: Vault) -> float:
    event = Event(id="2-17", job_id="j", thread_id="t", type="updates", data={"text": "x" * 1_000})
    began = time.perf_counter()
    for _ in range(1_000):
        opened_event(vault, decode_event(encoded_event(vault, event)))
    return (time.perf_counter() - began) / 1_000


async def _main(pairs: int) -> None:
    with test_servers() as urls:
        async with Database(urls.database_url, application_name="bench", limit=60) as database:
            await migrate_all(database, Keys())
        async with desk_on(urls.database_url) as desk:
            found = {
                f"superstep_{size}_bytes": await _pairs(pairs, lambda vault, size=size: _run(desk, vault, size))  # type: ignore[misc]
                for size in _SIZES
            }
        say("encryption", **found, event=await _pairs(pairs, _event))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if sys.argv[1:] else 15))
