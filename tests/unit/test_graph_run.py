"""A run that shall stop stops, whatever its steps do with their cancellation."""

from __future__ import annotations

import asyncio

from threadline_worker import graph_run
from threadline_worker.outcome import Retriable, Succeeded


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
