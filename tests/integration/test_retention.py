"""Compaction through the queue: an idle thread loses its history and nothing else, whatever its channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.desk import LedgerView
from support.gates import until
from support.house import house_on
from threadline import Client, JobFailed, JobInterrupted
from threadline.contract.job import new_id
from threadline_worker.embedded import ServerUrls

AGENTS = "diary=support.travel_graphs:diary,nested=support.people_graphs:nested,other=support.graphs:steps"
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


@pytest.fixture(scope="module")
def house(servers: ServerUrls, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    gates = tmp_path_factory.mktemp("gates")
    with house_on(servers, template, gates, THREADLINE_AGENTS=AGENTS) as env:
        yield env


@pytest.fixture
async def client(house: dict[str, str]) -> AsyncIterator[Client]:
    async with Client(redis_url=house["REDIS_URL"], database_url=house["DATABASE_URL"]) as made:
        yield made


@pytest.fixture
def view(house: dict[str, str]) -> LedgerView:
    return LedgerView(house["DATABASE_URL"])


def said(text: str, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"messages": [message], "spoken": [message], "lines": [text], **more}


async def talked(client: Client, turns: int, **options: Any) -> str:
    thread = new_id()
    for turn in range(turns):
        job = await client.enqueue("diary", said(f"turn {turn}"), thread_id=thread, **options)
        await job.result(timeout=30)
    return thread


def sizes(view: LedgerView, thread: str, namespace: str | None = None) -> dict[str, int]:
    where = "" if namespace is None else f" AND checkpoint_ns = '{namespace}'"
    return {
        table: view.rows(f"SELECT count(*) AS n FROM {table} WHERE thread_id = %s{where}", thread)[0]["n"]
        for table in TABLES
    }


def spoken(state: dict[str, Any], channel: str = "spoken") -> list[str]:
    return [message["data"]["content"] for message in state["values"][channel]]


async def test_L9_a_compacted_thread_has_its_state_and_goes_on(client: Client, view: LedgerView) -> None:
    thread, other = await talked(client, 4), await talked(client, 1)
    before, big = await client.state(thread), sizes(view, thread)
    untouched = sizes(view, other)
    job = await client.enqueue("diary", said("later"), thread_id=other, expires=3600)
    await job.result(timeout=30)
    untouched = sizes(view, other)
    await _age(view, thread)
    pruned = await client.prune(older_than=60)
    assert (pruned.compacted, pruned.skipped, pruned.failed) == (1, 0, 0)
    small = sizes(view, thread)
    assert small["checkpoints"] == 1
    assert small["checkpoint_writes"] == 0
    assert pruned.rows == {table: big[table] - small[table] for table in TABLES} | {
        # the snapshots that were put in: of `spoken` and `lines`
        "checkpoint_blobs": pruned.rows["checkpoint_blobs"],
    }
    assert pruned.rows["checkpoint_blobs"] > big["checkpoint_blobs"] - small["checkpoint_blobs"] - 1
    assert sizes(view, other) == untouched
    assert await client.state(thread) == before
    assert [entry["checkpoint_id"] for entry in await client.history(thread)] == [before["checkpoint_id"]]
    assert (await client.prune(older_than=60)).compacted == 0  # nothing has grown

    copy = await client.fork(thread)
    assert (await client.state(copy))["values"] == before["values"]
    again = await client.enqueue("diary", said("after"), thread_id=thread)
    await again.result(timeout=30)
    after = await client.state(thread)
    for channel in ("messages", "spoken"):
        assert spoken(after, channel)[: len(spoken(before, channel))] == spoken(before, channel)
        assert "after" in spoken(after, channel)
    assert after["values"]["lines"][: len(before["values"]["lines"])] == before["values"]["lines"]
    assert after["values"]["seen"][:-3] == before["values"]["seen"]


async def test_a_deep_agents_thread_is_compacted_and_goes_on(client: Client, view: LedgerView) -> None:
    """deepagents keep messages and files in delta channels, and their subagents' calls in namespaces of their own."""
    job = await client.enqueue("research", "What is a fence?")
    await job.result(timeout=60)
    thread = job.thread_id
    before, big = await client.state(thread), sizes(view, thread)
    await _age(view, thread)
    assert (await client.prune(older_than=60)).compacted == 1
    small = sizes(view, thread)
    assert (small["checkpoints"], small["checkpoint_writes"]) == (1, 0)
    assert big["checkpoints"] > 10
    assert await client.state(thread) == before
    again = await client.enqueue("research", "And a lease?", thread_id=thread)
    assert (await again.result(timeout=60))["report"]
    contents = [message["data"]["content"] for message in (await client.state(thread))["values"]["messages"]]
    assert {"What is a fence?", "And a lease?"} <= set(contents)


async def test_O2_a_thread_that_waits_is_left_alone_unless_told(client: Client, view: LedgerView) -> None:
    job = await client.enqueue("nested", {"heard": []})
    with pytest.raises(JobInterrupted):
        await job.result(timeout=30)
    thread = job.thread_id
    await _age(view, thread)
    before, asked = sizes(view, thread), (await client.state(thread))["interrupts"]
    assert (await client.prune(older_than=60)).compacted == 0
    assert sizes(view, thread) == before
    pruned = await client.prune(older_than=60, waiting=True)
    assert (pruned.compacted, pruned.failed) == (1, 0)
    assert (await client.state(thread))["interrupts"] == asked
    answers = [event async for event in _answer(client, thread)]
    assert answers == ["first", "second"]


async def test_a_failed_job_is_retried_behind_a_compaction_and_rolled_back_to_its_beginning(
    client: Client, view: LedgerView, house: dict[str, str]
) -> None:
    thread = await talked(client, 2)
    began = (await client.state(thread))["values"]
    job = await client.enqueue("diary", said("broken turn", topic="broken"), thread_id=thread)
    with pytest.raises(JobFailed):
        await job.result(timeout=30)
    await _age(view, thread)
    assert (await client.prune(older_than=60)).compacted == 1
    assert sizes(view, thread, "")["checkpoints"] == 2  # the head, and where the job began
    gate = Path(house["TEST_GATES"]) / f"{thread}.last"
    await client.update_state(thread, {"topic": "mended"}, as_node="child")
    gate.touch()
    again = await client.retry(job.job_id)
    try:
        await until(lambda: _running(view, job.job_id), "it runs")
        await again.cancel(rollback=True)
    finally:
        gate.unlink()
    await until(lambda: _restored(view, thread, job.job_id), "it is rolled back")
    assert (await client.state(thread))["values"] == began


async def test_a_channel_of_another_agent_is_left_whole(client: Client, view: LedgerView) -> None:
    thread = await talked(client, 2)
    job = await client.enqueue("other", {"done": [], "until": 1}, thread_id=thread)
    await job.result(timeout=30)
    await _age(view, thread)
    before = sizes(view, thread, "")
    assert (await client.prune(older_than=60)).compacted == 1
    assert sizes(view, thread, "") == before
    state = await client.state(thread, agent="diary")
    assert len(spoken(state)) == 4


async def test_jobs_of_old_go_in_order_and_their_keys_with_them(client: Client, view: LedgerView) -> None:
    thread = new_id()
    options: dict[str, Any] = {"thread_id": thread, "user_id": "keys", "idempotency_key": "k"}
    first = await client.enqueue("diary", said("one"), **options)
    await first.result(timeout=30)
    assert (await client.enqueue("diary", said("one"), **options)).job_id == first.job_id
    later = await client.enqueue("diary", said("two"), thread_id=thread, user_id="keys")
    await later.result(timeout=30)
    await _age(view, thread)
    assert (await client.prune(jobs=60)).jobs >= 2
    assert await client.jobs(thread_id=thread) == []
    again = await client.enqueue("diary", said("one"), **options)
    assert again.job_id != first.job_id
    await again.result(timeout=30)
    assert len(spoken(await client.state(thread))) == 6


async def _answer(client: Client, thread: str) -> AsyncIterator[str]:
    while True:
        [waiting] = await client.inbox(thread_id=thread)
        yield waiting.interrupts[0]["value"]
        job = await client.resume(thread, "yes")
        try:
            await job.result(timeout=30)
        except JobInterrupted:
            continue
        return


async def _age(view: LedgerView, thread: str) -> None:
    """A month has passed. Whoever has just ended it may still have the row: to note that its end was announced."""
    await asyncio.to_thread(
        view.rows,
        "UPDATE jobs SET finished_at = finished_at - interval '30 days' WHERE thread_id = %s",
        thread,
    )
    view.rows("UPDATE threads SET created_at = created_at - interval '30 days' WHERE thread_id = %s", thread)


def _running(view: LedgerView, job_id: str) -> bool:
    return bool(view.job(job_id)["state"] == "running")


def _restored(view: LedgerView, thread: str, job_id: str) -> bool:
    restoring = view.rows("SELECT restoring FROM threads WHERE thread_id = %s", thread)[0]["restoring"]
    return restoring is None and view.job(job_id)["state"] == "cancelled"
