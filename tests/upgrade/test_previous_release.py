"""The release before runs on today's schema, beside today's workers: jobs pass to and fro, none is lost or twice."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import threadline
from support.desk import LedgerView
from support.gates import Gates, until
from support.ledger import record_transitions, recorded_transitions
from support.previous_release import WHEEL, PreviousClient, PreviousWorker, previous_env, run_previous
from support.workers import WorkerHandle, Workers
from threadline import Client
from threadline.contract.keys import Keys
from threadline.ledger import migrate
from threadline.ledger.database import Database
from threadline.ledger.sql import migrations
from threadline_worker.backends import migrate_all

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "2"}
STEPS = {"done": [], "until": 3}
LOAD = 8


class House:
    """A database that 0.1.0 has made, its client and workers, and those of today."""

    def __init__(self, env: dict[str, str], previous: dict[str, str], new: Client) -> None:
        self.gates = Gates(env)
        self.view = LedgerView(env["DATABASE_URL"])
        self.url = env["DATABASE_URL"]
        self.today = Workers(env)
        self._previous = previous
        self.old: list[PreviousWorker] = []
        self.client = PreviousClient(previous)
        self.new = new
        self._names = itertools.count()
        self.jobs: list[str] = []

    def previous_worker(self) -> PreviousWorker:
        self.old.append(PreviousWorker(self._previous))
        self.old[-1].ready()
        return self.old[-1]

    def by_old(self, thread: str | None = None) -> str:
        thread = thread or f"old-{next(self._names)}"
        self.jobs.append(self.client.call("enqueue", "steps", STEPS, thread_id=thread))
        return self.jobs[-1]

    async def by_new(self) -> str:
        job = await self.new.enqueue("steps", STEPS, thread_id=f"new-{next(self._names)}")
        self.jobs.append(job.job_id)
        return job.job_id

    def version_of(self, job_id: str) -> str:
        return str(self.view.job(job_id)["worker_version"])

    async def close(self) -> None:
        for worker in self.old:
            worker.close()
        self.today.__exit__(None, None, None)
        await asyncio.to_thread(self.client.__exit__, None, None, None)


@pytest.fixture
def previous(env, tmp_path: Path) -> dict[str, str]:
    return previous_env({**env, **QUICK}, tmp_path)


@pytest.fixture
def env_on_empty(env, empty_database_url) -> dict[str, str]:
    return {**env, **QUICK, "DATABASE_URL": empty_database_url}


@pytest.fixture
async def house(env_on_empty, tmp_path: Path) -> Iterator[House]:
    before = previous_env(env_on_empty, tmp_path)
    assert "0001" in run_previous(before, "migrate")
    async with Client(redis_url=env_on_empty["REDIS_URL"], database_url=env_on_empty["DATABASE_URL"]) as new:
        made = House(env_on_empty, before, new)
        yield made
        await made.close()


def kept(view: LedgerView) -> list[dict]:
    """What 0.1.0 has stored, as far as it knows columns."""
    known = "job_id, seq, thread_id, agent, input::text, options::text, state, epoch, code, message, result::text"
    return view.rows(f"SELECT {known} FROM jobs WHERE state IN ('succeeded', 'failed', 'cancelled') ORDER BY seq")


async def one_by_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each migration alone, over rows of 0.1.0, whose client and worker go on behind each of them."""
    every, before = migrations(), kept(house.view)
    async with Database(house.url, application_name="tests", limit=60) as database:
        for count in range(2, len(every) + 1):
            with monkeypatch.context() as patched:
                patched.setattr(migrate, "migrations", lambda upto=count: every[:upto])
                async with await database.connect() as connection:
                    assert await migrate.migrate(connection, Keys()) == [every[count - 1][1]]
            assert kept(house.view)[: len(before)] == before
            done = await asyncio.to_thread(house.client.call, "result", house.by_old(), timeout=20)
            assert done == {"done": [0, 1, 2], "until": 3}, every[count - 1][1]
        assert await migrate_all(database, Keys()) == []  # and LangGraph's own are today's, too


async def test_a_rolling_upgrade_under_load_loses_no_job_and_runs_none_twice(house: House, monkeypatch) -> None:
    gates, view = house.gates, house.view
    first = await asyncio.to_thread(house.previous_worker)
    ended = [house.by_old(), house.by_old()]
    for job in ended:
        house.client.call("result", job, timeout=20)
    gates.close("moving", 1)
    moving = house.by_old("moving")
    await gates.begun("moving", 1)
    behind = house.client.call("enqueue", "steps", STEPS, thread_id="moving")
    assert house.client.call("cancel", behind)["state"] == "cancelled"
    # Its migrations come while it runs.
    await one_by_one(house, monkeypatch)
    assert house.version_of(moving) == "None"  # claimed before anybody noted it
    assert view.job(moving)["state"] == "running"
    record_transitions(house.url)

    second = await asyncio.to_thread(house.today.start)
    for _ in range(LOAD):
        house.by_old()
        await house.by_new()
    first.kill()
    assert (await gates.begun("moving", 1, times=2)).pid == second.pid
    assert house.version_of(moving) == threadline.__version__ != "0.1.0"
    assert view.job(moving)["agent_fingerprint"] is not None

    # And back: what today's worker began goes on in one of 0.1.0.
    third = await asyncio.to_thread(house.previous_worker)
    gates.close("moving", 2)
    second.signal(signal.SIGTERM)
    await until(lambda: "worker.draining" in second.seen(), "it drains")
    for _ in range(LOAD):
        house.by_old()
        await house.by_new()
    gates.open("moving", 1)
    assert (await gates.begun("moving", 2)).pid == third.pid
    assert second.process.wait(30) == 0
    assert house.version_of(moving) == "0.1.0"
    assert view.job(moving)["agent_fingerprint"] is None  # 0.1.0 does not say which graph it ran
    gates.open("moving", 2)

    for number, job in enumerate(house.jobs):
        if number % 2:
            result = await (await house.new.job(job)).result(timeout=30)
        else:
            result = await asyncio.to_thread(house.client.call, "result", job, timeout=30)
        assert result == {"done": [0, 1, 2], "until": 3}
    check_once(house)


def check_once(house: House) -> None:
    finished = [one.job_id for one in recorded_transitions(house.url) if one.to_state == "succeeded"]
    assert len(finished) == len(set(finished)) == 4 * LOAD + 1
    rows = house.view.rows("SELECT job_id, state, thread_id FROM jobs WHERE job_id = ANY (%s)", house.jobs)
    assert {row["state"] for row in rows} == {"succeeded"}
    assert len(rows) == len(house.jobs)
    for row in rows:
        steps = house.gates.steps(row["thread_id"])
        assert sorted(set(steps)) == [0, 1, 2]
        # Only a step that a kill or a drain cut off ran a second time.
        assert len(steps) <= 4


async def test_the_client_of_the_release_before_does_all_it_could(env, previous, workers) -> None:
    worker: WorkerHandle = workers(**QUICK)
    gates = Gates(env)
    with PreviousClient(previous) as old:
        job = old.call("enqueue", "steps", STEPS, thread_id="t", user_id="u", idempotency_key="k", metadata={"n": 1})
        assert old.call("result", job, timeout=20) == {"done": [0, 1, 2], "until": 3}
        assert (
            old.call("enqueue", "steps", STEPS, thread_id="t", user_id="u", idempotency_key="k", metadata={"n": 1})
            == job
        )
        events = old.call("events", job)
        assert [event["type"] for event in events] == ["queued", "started", *["updates"] * 3, "succeeded"]
        status = old.call("status", job)
        assert (status["state"], status["worker_id"], status["metadata"]) == ("succeeded", worker.worker_id, {"n": 1})

        gates.close("c", 1)
        running = old.call("enqueue", "steps", STEPS, thread_id="c")
        await gates.begun("c", 1)
        old.call("cancel", running)
        await until(lambda: old.call("status", running)["state"] == "cancelled", "it is cancelled")
        gates.open("c", 1)
        assert old.call("retry", running) == running
        assert old.call("result", running, timeout=20) == {"done": [0, 1, 2], "until": 3}

        gates.fail("f", "ValueError")
        failing = old.call("enqueue", "fails", STEPS, thread_id="f")
        await until(lambda: old.call("status", failing)["state"] == "failed", "it fails")
        assert "as ordered" in old.call("status", failing)["error"]["message"]
        assert [one["job_id"] for one in old.call("jobs", thread_id="f")] == [failing]
        replaced = old.call("enqueue", "steps", STEPS, thread_id="f", on_busy="rollback")
        assert old.call("result", replaced, timeout=20)["done"] == [0, 1, 2]


def test_the_kept_wheel_is_the_release_before() -> None:
    """Its first migration is what databases out there began with: ours must be the same to the letter."""
    import zipfile

    with zipfile.ZipFile(WHEEL) as wheel:
        first = wheel.read("threadline/ledger/schema/0001_ledger.sql").decode()
    assert migrations()[0][2] == first
