"""Time travel through the queue: the past is read while jobs run, forked, and changed by nobody but its user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from support.desk import LedgerView
from support.gates import until
from support.house import house_on
from support.nursery import called
from support.servers import ServerUrls
from threadline import (
    Client,
    InvalidJob,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    NeedsDatabase,
    ResultTimeout,
    ThreadBusy,
    ThreadOwnedByAnother,
    UnknownAgent,
)
from threadline.contract.job import new_id
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline.ledger.internal import Asked, InternalJobs
from threadline.ledger.ledger import Ledger
from threadline.ledger.sql import Queries

AGENTS = "diary=support.travel_graphs:diary,nested=support.people_graphs:nested"
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


async def talked(client: Client, turns: int = 2, **options: Any) -> str:
    """A thread with so many turns behind it."""
    thread = new_id()
    for turn in range(turns):
        job = await client.enqueue("diary", said(f"turn {turn}"), thread_id=thread, **options)
        await job.result(timeout=30)
    return thread


def spoken(state: dict[str, Any], channel: str = "messages") -> list[str]:
    return [message["data"]["content"] for message in state["values"][channel]]


def dump(view: LedgerView, thread: str) -> dict[str, list[Any]]:
    return {
        table: view.rows(f"SELECT * FROM {table} WHERE thread_id = %s ORDER BY 2, 3, 4, 5", thread) for table in TABLES
    }


async def test_the_past_of_a_conversation_is_read_page_by_page(client: Client) -> None:
    thread = await talked(client, 2)
    state = await client.state(thread)
    assert list(state) == ["values", "next", "interrupts", "checkpoint_id", "created_at"]
    assert spoken(state) == ["turn 0", "first of 1", "last about nothing", "turn 1", "first of 4", "last about nothing"]
    assert (state["next"], state["interrupts"]) == ([], [])

    whole = await client.history(thread)
    assert [list(entry) for entry in whole] == [["checkpoint_id", "step", "next", "created_at", "metadata"]] * 10
    assert [entry["step"] for entry in whole] == [8, 7, 6, 5, 4, 3, 2, 1, 0, -1]
    assert [entry["next"] for entry in whole[:5]] == [[], ["last"], ["child"], ["first"], ["__start__"]]
    assert whole[0]["checkpoint_id"] == state["checkpoint_id"]
    pages = [await client.history(thread, limit=4)]
    while pages[-1]:
        pages.append(await client.history(thread, limit=4, before=pages[-1][-1]["checkpoint_id"]))
    assert [len(page) for page in pages] == [4, 4, 2, 0]
    assert [entry for page in pages for entry in page] == whole

    then = await client.state(thread, checkpoint_id=whole[5]["checkpoint_id"])
    assert spoken(then) == ["turn 0", "first of 1", "last about nothing"]
    assert then["values"]["lines"] == ["turn 0", "first of 1", "inner"]


async def test_what_does_not_exist_is_said(client: Client, view: LedgerView) -> None:
    thread = await talked(client, 1)
    before = dump(view, thread)
    unknown = "1f1e4c6e-ede3-6763-8001-dee4865d789b"
    for call in (
        client.state(thread, checkpoint_id=unknown),
        client.history(thread, before=unknown),
        client.fork(thread, checkpoint_id=unknown),
    ):
        with pytest.raises(InvalidJob, match=f"has no checkpoint {unknown}"):
            await call
    for call in (client.state("nobody"), client.history("nobody"), client.fork("nobody")):
        with pytest.raises(JobNotFound, match="thread nobody is not known"):
            await call
    with pytest.raises(JobNotFound, match="thread nobody is not known"):
        await client.update_state("nobody", {"lines": ["x"]})
    with pytest.raises(InvalidJob, match="exists: give the id of a new thread"):
        await client.fork(thread, new_thread_id=await talked(client, 1))
    with pytest.raises(InvalidJob, match="cannot be forked onto itself"):
        await client.fork(thread, new_thread_id=thread)
    with pytest.raises(InvalidJob, match="Node nowhere does not exist"):
        await client.update_state(thread, {"lines": ["x"]}, as_node="nowhere")
    with pytest.raises(UnknownAgent, match="'nobody'"):
        await client.state(thread, agent="nobody")
    for values in ({"lines": {1}}, ["x"], {"lines": ["\ud800"]}, {"lines": ["x" * 1_100_000]}):
        with pytest.raises(InvalidJob, match="values"):
            await client.update_state(thread, values)  # type: ignore[arg-type]  # on purpose
    assert dump(view, thread) == before


async def test_a_thread_that_has_not_begun_has_an_empty_state(client: Client, house: dict[str, str]) -> None:
    job = await client.enqueue("diary", said("later"), run_at=_tomorrow())
    state = await client.state(job.thread_id)
    assert (state["values"], state["next"], state["checkpoint_id"]) == ({}, [], None)
    assert await client.history(job.thread_id) == []
    with pytest.raises(InvalidJob, match="has no checkpoint yet"):
        await client.fork(job.thread_id)


async def test_a_fork_has_the_values_of_every_checkpoint_and_goes_on_alone(client: Client, view: LedgerView) -> None:
    source = await talked(client, 2, user_id="u")
    before = dump(view, source)
    whole = await client.history(source)
    for entry in whole[::3]:
        chosen = entry["checkpoint_id"]
        copy = await client.fork(source, checkpoint_id=chosen, user_id="u")
        assert await client.state(copy, user_id="u") == await client.state(source, checkpoint_id=chosen), entry["step"]
        job = await client.enqueue("diary", said("elsewhere"), thread_id=copy, user_id="u")
        await job.result(timeout=30)
        was = spoken(await client.state(source, checkpoint_id=chosen))
        for channel in ("messages", "spoken"):
            assert spoken(await client.state(copy), channel)[: len(was)] == was or channel == "spoken"
        assert (await client.state(copy))["values"]["lines"][-3:] == ["elsewhere", f"first of {len(was) + 1}", "inner"]
    head = await client.fork(source, new_thread_id=f"{source}-copy")
    assert head == f"{source}-copy"
    assert [entry["checkpoint_id"] for entry in await client.history(head)] == [one["checkpoint_id"] for one in whole]
    assert dump(view, source) == before
    assert view.rows("SELECT user_id, agent FROM threads WHERE thread_id = %s", head) == [
        {"user_id": "u", "agent": "diary"}
    ]
    with pytest.raises(InvalidJob, match="exists"):
        await client.fork(source, new_thread_id=head)


async def test_a_fork_of_a_research_thread_is_equal_and_goes_on(client: Client) -> None:
    """deepagents keep messages and files in delta channels, and call subagents."""
    job = await client.enqueue("research", "What is a fence?")
    await job.result(timeout=60)
    whole = await client.history(job.thread_id, limit=1000)
    for entry in (whole[0], whole[len(whole) // 2]):
        copy = await client.fork(job.thread_id, checkpoint_id=entry["checkpoint_id"])
        then = await client.state(job.thread_id, checkpoint_id=entry["checkpoint_id"])
        assert await client.state(copy) == then
        assert len(then["values"]["messages"]) > 1
    was = await client.state(job.thread_id)
    again = await client.enqueue("research", "And a lease?", thread_id=copy)
    await again.result(timeout=60)
    contents = [message["data"]["content"] for message in (await client.state(copy))["values"]["messages"]]
    assert "What is a fence?" in contents
    assert "And a lease?" in contents
    assert await client.state(job.thread_id) == was


async def test_reads_and_forks_do_not_wait_for_a_running_job(client: Client, house: dict[str, str]) -> None:
    thread, gate = await talked(client, 1), None
    gate = Path(house["TEST_GATES"]) / f"{thread}.last"
    gate.touch()
    job = await client.enqueue("diary", said("turn 1"), thread_id=thread)
    try:
        await until(lambda: _stands(house, thread, "last", 2), "it stands")
        state = await client.state(thread)
        assert state["next"] == ["last"]
        assert spoken(state)[-2:] == ["turn 1", "first of 4"]
        assert len(await client.history(thread)) == 9
        copy = await client.fork(thread)
        assert (await client.state(copy))["values"] == state["values"]
        with pytest.raises(ThreadBusy) as busy:
            await client.update_state(thread, {"topic": "x"})
        assert busy.value.job_id == job.job_id
    finally:
        gate.unlink()
    await job.result(timeout=30)


async def test_L9_an_update_is_refused_while_a_job_runs_is_queued_or_waits(client: Client) -> None:
    waiting = await client.enqueue("nested", {"heard": []})
    with pytest.raises(JobInterrupted):
        await waiting.result(timeout=30)
    later = await client.enqueue("diary", said("later"), run_at=_tomorrow())
    for job in (waiting, later):
        with pytest.raises(ThreadBusy, match=job.job_id) as busy:
            await client.update_state(job.thread_id, {"heard": ["x"]})
        assert busy.value.job_id == job.job_id
    state = await client.state(waiting.thread_id)
    assert [one["value"] for one in state["interrupts"]] == ["first"]
    copy = await client.fork(waiting.thread_id)
    assert (await client.state(copy))["interrupts"] == []
    await waiting.cancel()
    assert await client.update_state(waiting.thread_id, {"heard": ["x"]}, as_node="before")


async def test_an_update_is_the_next_jobs_past(client: Client, view: LedgerView) -> None:
    thread = await talked(client, 1)
    head = (await client.history(thread))[0]
    made = await client.update_state(thread, said("by hand \0", topic="tea"), as_node="first")
    state = await client.state(thread)
    assert (state["checkpoint_id"], state["next"]) == (made, ["child"])
    assert state["values"]["topic"] == "tea"
    assert spoken(state)[-1] == spoken(state, "spoken")[-1]
    assert state["values"]["lines"][-1].startswith("by hand")
    entry = (await client.history(thread))[0]
    assert entry["metadata"]["source"] == "update"
    assert entry["metadata"]["job_id"] == head["metadata"]["job_id"]
    job = await client.enqueue("diary", said("turn 1"), thread_id=thread)
    assert (await job.result(timeout=30))["messages"][-1]["data"]["content"] == "last about tea"
    with pytest.raises(JobFailed):
        await client.update_state(thread, {"seen": 5}, as_node="last")
    with pytest.raises(InvalidJob, match="as_node"):
        await client.update_state(thread, {"seen": ["x"]}, as_node="")


async def test_a_failed_job_goes_on_behind_an_update(client: Client) -> None:
    job = await client.enqueue("diary", said("turn 0", topic="broken"))
    with pytest.raises(JobFailed, match="a broken topic"):
        await job.result(timeout=30)
    await client.update_state(job.thread_id, {"topic": "mended"}, as_node="child")
    again = await client.retry(job.job_id)
    assert (await again.result(timeout=30))["messages"][-1]["data"]["content"] == "last about mended"


async def test_another_users_thread_is_refused_to_every_call(client: Client, view: LedgerView) -> None:
    thread = await talked(client, 1, user_id="ada@example.org")
    other = await talked(client, 1, user_id="bob")
    before, threads = dump(view, thread), view.rows("SELECT thread_id FROM threads ORDER BY 1")
    for user in ("bob", "Ada@example.org", "ada@example.org\u200b", "default"):
        for call in (
            client.state(thread, user_id=user),
            client.history(thread, user_id=user),
            client.fork(thread, user_id=user),
            client.update_state(thread, {"topic": "x"}, user_id=user),
        ):
            with pytest.raises(ThreadOwnedByAnother):
                await call
    with pytest.raises(ThreadOwnedByAnother):
        await client.fork(other, new_thread_id=thread, user_id="bob")
    foreign = (await client.history(thread))[0]["checkpoint_id"]
    with pytest.raises(InvalidJob, match="has no checkpoint"):
        await client.state(other, checkpoint_id=foreign, user_id="bob")
    with pytest.raises(InvalidJob, match="has no checkpoint"):
        await client.fork(other, checkpoint_id=foreign, user_id="bob")
    assert dump(view, thread) == before
    assert view.rows("SELECT thread_id FROM threads ORDER BY 1") == threads


async def test_operations_leave_no_trace(client: Client, house: dict[str, str], view: LedgerView) -> None:
    thread = await talked(client, 1)
    told = [event.type async for event in _all(client, thread)]
    jobs, threads = await client.jobs(thread_id=thread), view.rows("SELECT count(*) FROM threads")
    async with redis.asyncio.Redis.from_url(house["REDIS_URL"]) as connection:
        keys = sorted(await connection.keys("threadline:events:*"))
        heard = connection.pubsub()
        await heard.subscribe(Keys().thread(thread))
        await heard.get_message(timeout=5)
        await client.state(thread)
        await client.history(thread)
        await client.update_state(thread, {"topic": "x"})
        assert sorted(await connection.keys("threadline:events:*")) == keys
        await connection.publish(Keys().thread(thread), b"end")
        assert (await heard.get_message(ignore_subscribe_messages=True, timeout=5))["data"] == b"end"
        await heard.aclose()
    assert await client.jobs(thread_id=thread) == jobs
    assert [event.type async for event in _all(client, thread)] == told
    assert view.rows("SELECT * FROM jobs WHERE kind = 'internal'") == []
    assert view.rows("SELECT count(*) FROM threads") == threads


async def test_without_redis_it_works_and_without_a_ledger_it_says_so(house: dict[str, str], client: Client) -> None:
    thread = await talked(client, 1)
    async with Client(database_url=house["DATABASE_URL"]) as alone:
        assert (await alone.state(thread))["values"]["seen"] == ["first", "inner", "last"]
    async with Client(redis_url=house["REDIS_URL"]) as light:
        with pytest.raises(NeedsDatabase, match="update_state"):
            await light.update_state(thread, {})


async def test_without_a_worker_it_says_so_and_nothing_stays(
    redis_url: str, database_url: str, house: dict[str, str]
) -> None:
    async with Client(redis_url=redis_url, database_url=database_url) as client:
        job = await client.enqueue("diary", said("x"))
        for call in (client.state(job.thread_id, timeout=0.3), client.fork(job.thread_id, timeout=0.3)):
            with pytest.raises(ResultTimeout, match=r"nothing was done; no worker is alive: start one"):
                await call
    view = LedgerView(database_url)
    assert view.rows("SELECT job_id FROM jobs WHERE kind = 'internal'") == []
    assert len(view.rows("SELECT thread_id FROM threads")) == 1


async def test_an_update_that_takes_too_long_is_given_up(client: Client, house: dict[str, str]) -> None:
    thread, gates = await talked(client, 1), Path(house["TEST_GATES"])
    (gates / f"{thread}.edge").touch()
    update = client.update_state(thread, {"topic": "late"}, as_node="first", timeout=0.7)
    with pytest.raises(ResultTimeout, match=r"within 0\.7 s, it may still be done; a worker has begun it"):
        await update
    (gates / f"{thread}.edge").unlink()
    job = await client.enqueue("diary", said("turn 1"), thread_id=thread)
    assert (await job.result(timeout=30))["messages"][-1]["data"]["content"] == "last about nothing"


async def test_answers_that_nobody_reads_are_pruned(client: Client, house: dict[str, str], view: LedgerView) -> None:
    thread = await talked(client, 1)
    threads = view.rows("SELECT thread_id FROM threads ORDER BY 1")
    async with Database(house["DATABASE_URL"], application_name="test") as database:
        jobs = InternalJobs(Ledger(database, Queries("threadline")))
        asked = Asked("state", thread, new_id(), {"checkpoint_id": None}, None, None, 60)
        stored, agent = await jobs.ask(new_id(), asked, dispatching=False)
        assert agent == "diary"
        await until(lambda: _succeeded(jobs, stored.job_id), "it is answered")
        assert (await jobs.look(stored.job_id))["result"]["next"] == []
        assert await jobs.prune() == 0
        # Its worker may have the row: to note that the end was announced.
        await until(lambda: _pruned(jobs), "it is forgotten")
    assert view.rows("SELECT thread_id FROM threads ORDER BY 1") == threads
    assert view.rows("SELECT * FROM jobs WHERE kind = 'internal'") == []


async def test_the_command_line(client: Client, house: dict[str, str]) -> None:
    def threadline(*arguments: str) -> subprocess.CompletedProcess[str]:
        return called(arguments, house)

    thread = await talked(client, 1, user_id="u")
    lines = threadline("history", thread).stdout.splitlines()
    assert len(lines) == 5
    whole = json.loads(threadline("history", thread, "--limit", "9", "--json").stdout)
    assert whole == await client.history(thread)
    older = json.loads(threadline("history", thread, "--before", whole[1]["checkpoint_id"], "--json").stdout)
    assert older == whole[2:]
    assert json.loads(threadline("state", thread, "--json").stdout) == await client.state(thread)
    then = threadline("state", thread, "--checkpoint", whole[2]["checkpoint_id"]).stdout
    assert json.loads(then)["values"]["seen"] == ["first"]
    assert threadline("fork", thread, "--as", f"{thread}-b", "--user", "u").stdout.strip() == f"{thread}-b"
    assert threadline("state", thread, "--user", "other").returncode == 2
    assert threadline("state", "nobody").returncode == 3
    assert threadline("update-state", thread, "{").returncode == 2
    changed = threadline("update-state", thread, '{"topic": "tea"}', "--as-node", "last")
    assert changed.stdout.strip() == (await client.state(thread))["checkpoint_id"]


async def _succeeded(jobs: InternalJobs, job_id: str) -> bool:
    return bool((await jobs.look(job_id))["state"] == "succeeded")


async def _pruned(jobs: InternalJobs) -> bool:
    return await jobs.prune(seconds=0) > 0


def _tomorrow() -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(days=1)


def _stands(house: dict[str, str], thread: str, node: str, times: int = 1) -> bool:
    effects = Path(house["TEST_GATES"]) / "effects"
    return effects.exists() and effects.read_text().splitlines().count(f"{thread} {node}") >= times


async def _all(client: Client, thread: str) -> AsyncIterator[Any]:
    """What the thread's followers are told up to the end of its last job."""
    left = len(await client.jobs(thread_id=thread))
    events = client.thread_events(thread)
    try:
        async for event in events:
            yield event
            left -= event.type == "succeeded"
            if not left:
                return
    finally:
        await events.aclose()
