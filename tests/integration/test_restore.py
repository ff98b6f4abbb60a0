"""P3: one server comes back from a backup beside a newer other one; docs/operations.md tells the same to operators."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis

from support.backups import Backups
from support.desk import LedgerView
from support.gates import Gates, until
from support.logs import Reader
from support.servers import ServerControl, controlled_servers
from support.workers import Workers
from threadline import BackendUnavailable, Client, JobNotFound
from threadline.contract.events import EventId
from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.backends import migrate_all

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}


@pytest.fixture
def control() -> Iterator[ServerControl]:
    with controlled_servers() as made:
        yield made


@pytest.fixture
def redis_url(control: ServerControl) -> str:
    return control.urls.redis_url


@pytest.fixture
def database_url(control: ServerControl) -> str:
    return control.urls.database_url


@pytest.fixture(autouse=True)
async def migrated(database_url: str) -> None:
    async with Database(database_url, application_name="tests", limit=60) as database:
        await migrate_all(database, Keys())


def steps(until_: int) -> dict[str, Any]:
    return {"done": [], "until": until_}


async def test_P3_a_ledger_from_the_past_beside_a_newer_redis(control, env, client, database_url, redis_url) -> None:
    gates, view, backups = Gates(env), LedgerView(database_url), Backups(control)
    with Workers({**env, **QUICK}) as crew:
        worker = crew.start()
        ended = await client.enqueue("steps", steps(1), thread_id="ended")
        await ended.result(timeout=20)
        gates.close("b", 2)
        running = await client.enqueue("steps", steps(4), thread_id="b")
        behind = await client.enqueue("steps", steps(1), thread_id="b", idempotency_key="behind")
        await gates.begun("b", 2)
        backups.base_backup()
        moment = backups.now()

        # After the moment: the job is picked up (epoch 3) and ends (4), and others come and go.
        worker.kill()
        worker = crew.start()
        await gates.begun("b", 2, times=2)
        gates.open("b", 2)
        later = [event async for event in running.events()]
        assert later[-1].type == "succeeded"
        assert (await behind.result(timeout=20))["done"] == [0, 1, 2, 3, 4]
        unknown = await client.enqueue("steps", steps(1), thread_id="later", idempotency_key="later")
        await unknown.result(timeout=20)
        assert worker.terminate() == 0
        waiting = await client.enqueue("steps", steps(1), thread_id="waits")
        backups.archived()

    before = len(gates.steps("b"))
    backups.restore(moment)
    await until(lambda: answers(client), "the client has new connections")
    assert view.job(ended.job_id)["state"] == "succeeded"
    assert (view.job(running.job_id)["state"], view.job(running.job_id)["epoch"]) == ("running", 1)
    with pytest.raises(JobNotFound):
        await client.job(unknown.job_id)
    follower = Reader(running.events(after=later[-1].id))  # holds a position that the ledger does not know

    with Workers({**env, **QUICK}) as crew:
        worker = crew.start()
        assert await running.result(timeout=20) == {"done": [0, 1, 2, 3], "until": 4}
        assert await behind.result(timeout=20) == {"done": [0, 1, 2, 3, 4], "until": 1}
        # From the last checkpoint that the backup has, on an epoch above all that stands in the log.
        assert gates.steps("b")[before:] == [2, 3, 4]
        row = view.job(running.job_id)
        assert row["epoch"] > later[-1].position.epoch
        await follower.end()
        again = follower.events
        assert [event.type for event in again if event.type != "updates"][-1] == "succeeded"
        assert all(event.position is None or event.position.epoch > later[-1].position.epoch for event in again)
        assert [event.data for event in again if event.type == "updates"] == [
            {"step": {"done": [2]}}, {"step": {"done": [3]}},
        ]  # fmt: skip

        # What was accepted after the moment is gone; its wake-up is taken from the queue and hurts nobody.
        with pytest.raises(JobNotFound):
            await waiting.status()
        await made_anew(client, unknown.job_id, redis_url)
        assert not {"queue.purged", "worker.stalled", "job.failed", "publish.ended"} & set(worker.seen())
        assert worker.terminate() == 0


async def test_P3_a_redis_from_the_past_beside_a_newer_ledger(control, env, client, redis_url) -> None:
    gates = Gates(env)
    with Workers({**env, **QUICK}) as crew:
        worker = crew.start()
        gates.close("t", 1)
        gates.close("t", 3)
        job = await client.enqueue("steps", steps(5), thread_id="t")
        await gates.begun("t", 1)
        waits = await client.enqueue("steps", steps(1), thread_id="t")
        follower = Reader(job.events())
        with redis.Redis.from_url(redis_url) as connection:
            connection.save()  # the snapshot: one step told, one message waits
        gates.open("t", 1)
        await gates.begun("t", 3)
        ended = await client.enqueue("steps", steps(2), thread_id="u")
        assert await ended.result(timeout=20) == {"done": [0, 1], "until": 2}
        control.kill_redis()
        control.restart_redis()  # reads the snapshot
        gates.open("t", 3)
        assert await job.result(timeout=20) == {"done": [0, 1, 2, 3, 4], "until": 5}
        assert await waits.result(timeout=20) == {"done": [0, 1, 2, 3, 4, 5], "until": 1}
        assert gates.steps("t") == [0, 1, 2, 3, 4, 5]  # nothing ran twice
        await follower.end()
        assert follower.events[-1].type == "succeeded"
        # Who comes later is told where the log has a hole; a job that ended after the snapshot has an end all the same.
        late = [event async for event in job.events()]
        assert late[-1].type == "succeeded"
        assert whole(late) or "gap" in [event.type for event in late]
        assert [event.type async for event in ended.events()][-1] == "succeeded"
        assert await (await client.enqueue("steps", steps(1))).result(timeout=20) == {"done": [0], "until": 1}
        assert worker.terminate() == 0


async def made_anew(client: Client, job_id: str, redis_url: str) -> None:
    """The same key makes a new job where the first one is gone, and no message of an unknown job is left."""
    again = await client.enqueue("steps", steps(1), thread_id="later", idempotency_key="later")
    assert again.job_id != job_id
    assert await again.result(timeout=20) == {"done": [0], "until": 1}
    with redis.Redis.from_url(redis_url) as connection:
        await until(lambda: connection.zcard(Keys().queue) == 0, "the queue is empty")


async def answers(client: Client) -> bool:
    """Postgres' connections ended with it; the pool notices one by one."""
    try:
        await client.jobs(limit=1)
    except BackendUnavailable:
        return False
    return True


def whole(events: list[Any]) -> bool:
    """Each event follows the one before, by its number or by what it says came before it."""
    return all(
        later.position == EventId(one.position.epoch, one.position.n + 1) or later.prev == one.id
        for one, later in pairwise(events)
    )
