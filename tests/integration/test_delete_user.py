"""A user is erased: while jobs run, while enqueues are under way, over a SIGKILL and without Redis; others keep all."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis.asyncio
from langgraph.checkpoint.base import empty_checkpoint

from support.desk import LedgerView, desk_on
from support.gates import until
from support.house import house_on
from support.nursery import called
from threadline import BackendUnavailable, Client, ConfigurationError, JobInterrupted, JobNotFound
from threadline.calls.thread_agenda import ending_of
from threadline.contract.codec import dumps
from threadline.contract.keys import Keys
from threadline.contract.user_names import UserNames
from threadline.ledger.erasure import erasing
from threadline.ledger.ledger import Ledger
from threadline.log.follow import follow
from threadline.settings import ClientSettings
from threadline_worker.checkpoints import LeaseLost
from threadline_worker.embedded import ServerUrls

AGENTS = "diary=support.travel_graphs:diary,nested=support.people_graphs:nested"
#: Each with the column that says whose a row is, by a subquery.
OF_THREADS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "effects", "jobs", "stretches", "threads")
OF_JOBS = ("webhooks", "job_bases", "job_base_writes", "cancel_requests")


@pytest.fixture(scope="module")
def house(servers: ServerUrls, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    gates = tmp_path_factory.mktemp("gates")
    with house_on(servers, template, gates, THREADLINE_AGENTS=AGENTS, THREADLINE_RETENTION_SECONDS="0.3") as env:
        yield env


@pytest.fixture
async def client(house: dict[str, str]) -> AsyncIterator[Client]:
    async with Client(redis_url=house["REDIS_URL"], database_url=house["DATABASE_URL"]) as made:
        yield made


@pytest.fixture
def view(house: dict[str, str]) -> LedgerView:
    return LedgerView(house["DATABASE_URL"])


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "lines": [text]}


def rows_of(view: LedgerView, threads: list[str], jobs: list[str]) -> dict[str, int]:
    """What the tables have of these threads and jobs, by the test's own statements."""
    counts = {}
    for table in (*OF_THREADS, *OF_JOBS):
        column, ids = ("thread_id", threads) if table in OF_THREADS else ("job_id", jobs)
        counts[table] = view.rows(f"SELECT count(*) AS n FROM {table} WHERE {column} = ANY (%s)", ids)[0]["n"]
    return counts


async def lived(client: Client, house: dict[str, str], view: LedgerView, user: str) -> tuple[list[str], list[str]]:
    """A user with a bit of everything; threads and jobs, the last of which stands at a gate."""
    done = await client.enqueue("diary", said("one"), user_id=user, webhook_url="https://example.org/hook")
    await done.result(timeout=30)
    waiting = await client.enqueue("nested", {"heard": []}, user_id=user)
    with pytest.raises(JobInterrupted):
        await waiting.result(timeout=30)
    copy = await client.fork(done.thread_id, user_id=user)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    later = await client.enqueue("diary", said("later"), user_id=user, run_at=tomorrow)
    gate = Path(house["TEST_GATES"]) / f"{user}-running.last"
    gate.touch()
    running = await client.enqueue("diary", said("now"), thread_id=f"{user}-running", user_id=user)
    effects = Path(house["TEST_GATES"]) / "effects"
    await until(lambda: f"{user}-running last" in effects.read_text(), "it stands")
    view.rows(
        "INSERT INTO effects (thread_id, key, job_id, epoch, worker_id, result) VALUES (%s, 'k', %s, 1, 'w', '1')",
        done.thread_id, done.job_id,
    )  # fmt: skip
    for prefix in (f"memories.{UserNames().name(user)}", f"orders.{UserNames().name(user)}.2026"):
        view.rows("INSERT INTO store (prefix, key, value) VALUES (%s, 'k', '{}')", prefix)
    letter = dumps({"v": 1, "job_id": "x", "agent": "diary", "thread_id": "t", "user_id": user, "input": "secret"})
    cut = letter[:-10]
    for name, body in (("whole", letter), ("cut", cut)):
        view.rows("INSERT INTO dead_letters (message_id, reason, body) VALUES (%s, 'r', %s)", f"{user}-{name}", body)
    jobs = [job.job_id for job in (done, waiting, later, running)]
    return [done.thread_id, waiting.thread_id, copy, later.thread_id, running.thread_id], jobs


async def test_nothing_of_a_user_is_left_also_while_a_job_runs(
    client: Client, house: dict[str, str], view: LedgerView
) -> None:
    neighbour = await client.enqueue("diary", said("mine"), user_id="bob")
    await neighbour.result(timeout=30)
    view.rows("INSERT INTO store (prefix, key, value) VALUES (%s, 'k', '{}')", f"memories.{UserNames().name('bob')}")
    bobs = rows_of(view, [neighbour.thread_id], [neighbour.job_id])
    threads, jobs = await lived(client, house, view, "ann")
    before = rows_of(view, threads, jobs)
    assert all(before[table] for table in ("checkpoints", "webhooks", "job_bases", "effects"))
    follower = asyncio.create_task(_types(client, jobs[-1]))

    async with redis.asyncio.Redis.from_url(house["REDIS_URL"]) as connection:
        carried = dumps({"t": None, "f": "run_job", "a": ["c", json.loads(_letter("ann"))], "k": {}, "et": 1})
        future = datetime.now(UTC).timestamp() * 1000 + 60_000
        await connection.set("arq:job:carried", carried)
        await connection.zadd(Keys().queue, {"carried": future})
        deleted = await client.delete_user("ann")
        logs = [await connection.xrange(Keys().events(job)) for job in jobs]
        left = [await connection.exists("arq:job:carried"), await connection.zscore(Keys().queue, "carried")]
    assert deleted.finished
    assert set(deleted.left.values()) == {0}
    assert deleted.left.keys() >= {*OF_THREADS, *OF_JOBS, "store", "dead_letters", "logs", "messages"}
    assert deleted.erased["store"] == deleted.erased["dead_letters"] == 2
    assert deleted.erased["messages"] >= 1
    assert deleted.erased["checkpoints"] == before["checkpoints"]
    assert rows_of(view, threads, jobs) == dict.fromkeys(before, 0)
    assert left == [0, None]
    # Of what somebody may still run or follow: its end, alone, for a minute.
    assert [len(log) <= 1 for log in logs] == [True] * 4
    assert b"secret" not in repr(logs).encode()
    assert (await asyncio.wait_for(follower, 10))[-1] == "cancelled"
    assert await asyncio.wait_for(_after_a_cut(house, jobs[-1]), 10) == ["gap", "cancelled"]
    async with redis.asyncio.Redis.from_url(house["REDIS_URL"]) as connection:
        await connection.delete(Keys().events(jobs[-1]))  # a minute later
    with pytest.raises(JobNotFound):
        await asyncio.wait_for(_after_a_cut(house, jobs[-1]), 10)

    # The zombie goes on: its write fails, and nothing comes back.
    (Path(house["TEST_GATES"]) / "ann-running.last").unlink()
    again = await client.enqueue("diary", said("new"), thread_id="ann-running", user_id="carl")
    await again.result(timeout=30)
    assert [line for line in (await client.state("ann-running"))["values"]["lines"] if "now" in line] == []
    assert rows_of(view, threads[:-1], jobs) == dict.fromkeys(before, 0)
    for job in jobs:
        with pytest.raises(JobNotFound):
            await client.job(job)
    [line] = view.rows("SELECT * FROM audit WHERE subject = %s", UserNames().name("ann"))
    assert (line["event"], line["counts"]["left"]["jobs"]) == ("user_deleted", 0)
    assert line["finished_at"] is not None
    assert "ann-" not in str(line)
    assert rows_of(view, [neighbour.thread_id], [neighbour.job_id]) == bobs
    assert view.rows("SELECT user_id FROM erasures") == []
    assert len(view.rows("SELECT key FROM store")) == 1


async def test_a_killed_deletion_goes_on_and_refuses_the_user_meanwhile(
    client: Client, house: dict[str, str], view: LedgerView
) -> None:
    job = await client.enqueue("diary", said("one"), user_id="eve")
    await job.result(timeout=30)
    prefix = f"memories.{UserNames().name('eve')}"
    view.rows("INSERT INTO store (prefix, key, value) VALUES (%s, 'k', '{}')", prefix)
    with psycopg.connect(house["DATABASE_URL"]) as holder:
        holder.execute("SELECT FROM threadline.store WHERE prefix = %s FOR UPDATE", (prefix,))
        process = subprocess.Popen([sys.executable, "-m", "threadline.cli", "delete-user", "eve", "--yes"], env=house)
        await until(lambda: not view.rows("SELECT 1 FROM checkpoints WHERE thread_id = %s", job.thread_id), "half way")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(BackendUnavailable, match="is being deleted: repeat the request when that is done"):
            await client.enqueue("diary", said("two"), user_id="eve")
        with pytest.raises(BackendUnavailable, match="is being deleted"):
            await client.fork(job.thread_id, user_id="eve", agent="diary")
        assert view.rows("SELECT user_id FROM threads WHERE thread_id = %s", job.thread_id) == [{"user_id": "eve"}]
    view.rows("UPDATE erasures SET worked_at = worked_at - interval '1 minute'")
    # Nobody repeats the command: the worker's schedule finds it.
    await until(lambda: not view.rows("SELECT 1 FROM erasures"), "it is finished")
    assert set(rows_of(view, [job.thread_id], [job.job_id]).values()) == {0}
    assert view.rows("SELECT 1 FROM store WHERE prefix = %s", prefix) == []
    await (await client.enqueue("diary", said("two"), user_id="eve")).result(timeout=30)


async def test_without_redis_postgres_is_emptied_and_a_worker_does_the_rest(
    client: Client, house: dict[str, str], view: LedgerView
) -> None:
    job = await client.enqueue("diary", said("one"), user_id="dan")
    await job.result(timeout=30)
    async with Client(redis_url="redis://127.0.0.1:1/0", database_url=house["DATABASE_URL"]) as cut_off:
        deleted = await cut_off.delete_user("dan")
    assert not deleted.finished
    assert deleted.waiting_for
    assert set(deleted.left.values()) == {0}
    assert set(rows_of(view, [job.thread_id], [job.job_id]).values()) == {0}
    new = await client.enqueue("diary", said("two"), user_id="dan")  # a new life: taken at once
    await new.result(timeout=30)
    view.rows("UPDATE erasures SET worked_at = worked_at - interval '1 minute'")
    await until(lambda: not view.rows("SELECT 1 FROM erasures"), "it is finished")
    async with redis.asyncio.Redis.from_url(house["REDIS_URL"]) as connection:
        assert await connection.xlen(Keys().events(job.job_id)) <= 1
        assert await connection.xlen(Keys().events(new.job_id)) > 1
    assert await new.result(timeout=5)


async def test_an_enqueue_under_way_is_waited_for_and_erased(client: Client, house: dict[str, str]) -> None:
    async with await psycopg.AsyncConnection.connect(house["DATABASE_URL"]) as own:
        job = await client.enqueue("diary", said("one"), user_id="fay", connection=own)
        deleting = asyncio.create_task(client.delete_user("fay"))
        async with await psycopg.AsyncConnection.connect(house["DATABASE_URL"], autocommit=True) as watcher:
            await until(partial(_waits, watcher), "the deletion waits for it")
        assert not deleting.done()
        await own.commit()
        deleted = await deleting
    assert deleted.finished
    assert deleted.erased["jobs"] == 1
    with pytest.raises(JobNotFound):
        await client.job(job.job_id)


async def test_F1_what_a_zombie_writes_behind_a_deletion_fails(database_url: str, redis_url: str) -> None:
    async with desk_on(database_url) as desk, Client(redis_url=redis_url, database_url=database_url) as client:
        claim = await desk.claim("t")
        saver = desk.saver(claim)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        await saver.aput(config, empty_checkpoint(), {}, {})
        assert (await client.delete_user("default")).erased["checkpoints"] == 1
        with pytest.raises(LeaseLost):
            await saver.aput(config, empty_checkpoint(), {}, {})
        assert desk.view.rows("SELECT 1 FROM checkpoints") == []
        assert (await client.delete_user("default")).erased == {"threads": 0, "logs": 0, "messages": 0}


async def test_names_that_the_workers_do_not_use_are_refused(house: dict[str, str], view: LedgerView) -> None:
    settings = ClientSettings(
        redis_url=house["REDIS_URL"], database_url=house["DATABASE_URL"], user_names=UserNames((b"k" * 32,))
    )
    view.rows("UPDATE workers SET user_names = %s", UserNames((b"other" * 8,)).mark)
    try:
        async with Client(settings=settings) as stranger:
            with pytest.raises(ConfigurationError, match="THREADLINE_USER_HASH_KEYS is not what the workers have"):
                await stranger.delete_user("ann")
        assert view.rows("SELECT 1 FROM erasures") == []
    finally:
        view.rows("UPDATE workers SET user_names = %s", UserNames().mark)


async def test_batches_are_counted_once_however_many_work_on_it(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        for number in range(30):
            await desk.enqueue(f"t{number}")
        ledger = Ledger(desk.database, desk.queries)
        async with erasing(ledger, "default") as one, erasing(ledger, "default") as other:
            await one.begin(UserNames())
            await asyncio.gather(_drained(one), _drained(other))
            found = await one.finish("s")
            assert (await other.finish("s")).done
    assert (found.erased, found.done) == ({"jobs": 30, "threads": 30}, True)
    assert len(LedgerView(database_url).rows("SELECT 1 FROM audit")) == 1


def test_the_command_asks_first(house: dict[str, str]) -> None:
    def threadline(*arguments: str, env: dict[str, str] = house) -> subprocess.CompletedProcess[str]:
        return called(["delete-user", *arguments], env)

    refused = threadline("nobody")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "give --yes" in refused.stderr
    done = threadline("nobody", "--yes", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["finished"] is True
    assert (
        threadline(
            "nobody", "--yes", env={name: value for name, value in house.items() if name != "REDIS_URL"}
        ).returncode
        == 4
    )


async def _types(client: Client, job_id: str) -> list[str]:
    async with aclosing((await client.job(job_id)).events()) as events:
        return [event.type async for event in events]


async def _after_a_cut(house: dict[str, str], job_id: str) -> list[str]:
    """What somebody is told who followed the job and has a new connection now."""
    async with (
        redis.asyncio.Redis.from_url(house["REDIS_URL"]) as connection,
        desk_on(house["DATABASE_URL"]) as desk,
        aclosing(follow(connection, Keys(), job_id, ending=ending_of(desk.ledger, job_id))) as events,
    ):
        return [event.type async for event in events]


async def _waits(watcher: psycopg.AsyncConnection[Any]) -> bool:
    cursor = await watcher.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    return await cursor.fetchone() is not None


async def _drained(erasure: Any) -> None:
    async for _recent in erasure.erase():
        pass


def _letter(user: str) -> bytes:
    return dumps({"v": 1, "job_id": "c", "agent": "diary", "thread_id": "t", "user_id": user, "input": "x"})
