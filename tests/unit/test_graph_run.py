"""A run that shall stop stops, whatever its steps do with their cancellation."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from threadline_worker import graph_run
from threadline_worker.graph_run import GraphRun
from threadline_worker.outcome import Retriable, Succeeded
from threadline_worker.resume import Decision


async def test_a_step_that_swallows_its_cancellation_is_left_behind(monkeypatch) -> None:
    monkeypatch.setattr(graph_run, "_STOP_SECONDS", 0.05)
    let_go = asyncio.Event()

    async def stubborn() -> Succeeded:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return Succeeded(None)

    driver = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await graph_run._stop(driver)
    assert not driver.done()
    let_go.set()
    await driver


async def test_a_graph_that_cancels_itself_has_an_outcome() -> None:
    async def cancels() -> Succeeded:
        raise asyncio.CancelledError

    driver = asyncio.create_task(cancels())
    await asyncio.wait({driver})
    assert isinstance(graph_run._end(driver), Retriable)


@pytest.mark.parametrize(
    ("modes", "told"),
    [(["updates"], 4), (["messages", "tasks"], 4), (["messages"], None), (["values", "custom"], None)],
)
async def test_P2_where_not_every_step_shows_no_reader_can_miss_one(monkeypatch, modes, told) -> None:
    """A job that streams tokens alone: steps without a model show nothing, and a pick-up behind them is no gap."""

    async def decided(*_arguments: Any, **_options: Any) -> Decision:
        return Decision("resume", "c", 4)

    async def noted(*_arguments: Any, **_graph: Any) -> None:
        return None

    monkeypatch.setattr(graph_run, "decide", decided)
    monkeypatch.setattr(GraphRun, "_saver", lambda _self: None)
    options = {"interrupt_before": [], "interrupt_after": [], "stream_modes": modes}
    claim = SimpleNamespace(
        agent="a", kind="run", newest_at_claim=None, thread_id="t", job_id="j", options=options, row={}
    )
    services = SimpleNamespace(ledger=SimpleNamespace(note_checkpoint=noted))
    agent = SimpleNamespace(graph=SimpleNamespace(copy=lambda _changes: None), fingerprint="f", structure={})
    made = GraphRun(services, SimpleNamespace(claim=claim), agent)
    assert await made.decide() == told
