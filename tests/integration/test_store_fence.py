"""F2: what a run remembers passes the same fence as its checkpoints."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from support.desk import Desk, desk_on
from threadline_worker.checkpoints import CheckpointsAway, Fence, LeaseLost
from threadline_worker.memory_store import FencedStore


@pytest.fixture
async def desk(database_url):
    async with desk_on(database_url) as made:
        yield made


@asynccontextmanager
async def store_of(desk: Desk, claim, **wrong):
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)._replace(**wrong)
    store = FencedStore(desk.checkpoints.pool, fence, desk.queries)
    try:
        yield store
    finally:
        store.stop()


async def test_F2_a_stale_worker_remembers_nothing(desk: Desk) -> None:
    claim = await desk.claim("t")
    async with store_of(desk, claim) as store:
        await store.aput(("memories", "u"), "a", {"x": 1})
        assert (await store.aget(("memories", "u"), "a")).value == {"x": 1}
        assert len(await store.asearch(("memories",))) == 1
    before = desk.view.dump("store")
    for wrong in ({"epoch": 2}, {"worker_id": "w-b"}, {"job_id": "another"}, {"thread_id": "u"}):
        async with store_of(desk, claim, **wrong) as store:
            with pytest.raises(LeaseLost):
                await store.aput(("memories", "u"), "a", {"x": 2})
            with pytest.raises(LeaseLost):
                await store.adelete(("memories", "u"), "a")
            with pytest.raises(LeaseLost):  # what it reads it would act on
                await store.aget(("memories", "u"), "a")
    await desk.rescue("w-a")
    async with store_of(desk, claim) as store:
        with pytest.raises(LeaseLost):
            await store.aput(("memories", "u"), "b", {"x": 3})
    assert desk.view.dump("store") == before


async def test_F2_a_lost_connection_is_no_failure_of_the_tool(desk: Desk) -> None:
    claim = await desk.claim("t")
    async with store_of(desk, claim) as store:
        await store.aput(("memories", "u"), "a", {"x": 1})
        desk.view.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'desk' AND pid <> pg_backend_pid()"
        )
        with pytest.raises(CheckpointsAway):
            await store.aput(("memories", "u"), "a", {"x": 2})
