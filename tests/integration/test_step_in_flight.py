"""R1, R3, F2, F3: a worker is killed behind a step, in the middle of tools and in the middle of effects; what then is.

One worker dies with three jobs in its hands, another goes on with them; the tests look at what both have left.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import redis

from support.chaos_processes import package_roots
from support.desk import LedgerView
from support.gates import Gates, until
from support.ledger import cloned
from support.workers import WorkerHandle, Workers
from threadline import Client

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}
AGENTS = (("steps", "graphs"), ("calls", "tool_graphs"), ("payments", "tool_graphs"))
ASKED = {"messages": [{"type": "human", "content": "go"}]}
#: Whoever writes a checkpoint of a step that stands in `held` waits for the lock.
HOLD = """
CREATE TABLE public.paid (how text);
CREATE TABLE threadline.held (thread_id text, step int);
CREATE FUNCTION threadline.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM threadline.held AS h
        WHERE h.thread_id = NEW.thread_id AND h.step = (NEW.metadata ->> 'step')::int) THEN
        PERFORM pg_advisory_xact_lock(4242);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hold BEFORE INSERT ON threadline.checkpoints FOR EACH ROW EXECUTE FUNCTION threadline.hold();
INSERT INTO threadline.held VALUES ('s', 2), ('h', 1);
"""
WAITERS = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4242 AND NOT granted"


@dataclass
class Scene:
    """What the killed worker and its successor left. `before` and `after` are lines of tools."""

    victim: WorkerHandle
    heir: WorkerHandle
    gates: Gates
    view: LedgerView
    client: Client
    url: str
    steps_before: list[int]
    steps: list[int]
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    results: dict[str, Any]


@pytest.fixture(scope="module")
def env(servers, template, tmp_path_factory) -> Iterator[dict[str, str]]:
    gates = tmp_path_factory.mktemp("gates")
    with cloned(servers, template) as url, redis.Redis.from_url(servers.redis_url) as connection:
        connection.flushdb()
        with psycopg.connect(url, autocommit=True) as setup:
            setup.execute(HOLD)
        yield {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parent.parent)]),
            "THREADLINE_AGENTS": ",".join(f"{name}=support.{module}:{name}" for name, module in AGENTS),
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
            "TEST_GATES": str(gates),
        }


def lines(env: dict[str, str]) -> list[dict[str, Any]]:
    file = Path(env["TEST_GATES"]) / "tools"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(env) -> AsyncIterator[Scene]:
    gates, view = Gates(env), LedgerView(env["DATABASE_URL"])
    folder = Path(env["TEST_GATES"])
    with Workers(env) as workers, psycopg.connect(env["DATABASE_URL"], autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(4242)")
        victim = workers.start()
        async with Client(redis_url=env["REDIS_URL"], database_url=env["DATABASE_URL"]) as client:
            for thread in ("calls", "payments"):
                (folder / f"{thread}.gate").touch()
            jobs = {name: await client.enqueue(name, ASKED, thread_id=name) for name in ("calls", "payments")}
            jobs["steps"] = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="s")
            await until(lambda: view.rows(WAITERS) or None, "the second step's checkpoint is on its way")
            # While it is, the same event loop takes another job to its end: it had the time for a third step.
            other = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="u")
            await other.result(timeout=10)
            before = await until(lambda: len(found := lines(env)) == 13 and found, "all tools are at work")
            steps_before = gates.steps("s")
            victim.kill()
            heir = workers.start(**QUICK)
            heir.logged("worker.dead")
            lock.execute("SELECT pg_advisory_unlock(4242)")
            for thread in ("calls", "payments"):
                (folder / f"{thread}.gate").unlink()
            results = {name: await job.result(timeout=20) for name, job in jobs.items()}
            after = lines(env)[len(before) :]
            yield Scene(
                victim,
                heir,
                gates,
                view,
                client,
                env["DATABASE_URL"],
                steps_before,
                gates.steps("s"),
                before,
                after,
                results,
            )


def said(result: Any) -> list[str]:
    return str(result["messages"][-1]["data"]["content"]).split(" | ")


@pytest.mark.asyncio(loop_scope="module")
async def test_R1_no_step_begins_before_the_one_before_it_is_durable(scene: Scene) -> None:
    """Killed while a step's checkpoint is not committed: the next step has not begun, so the successor repeats one."""
    assert scene.steps_before == [0, 1]
    assert scene.steps == [0, 1, 1, 2]
    assert scene.results["steps"] == {"done": [0, 1, 2], "until": 3}


@pytest.mark.asyncio(loop_scope="module")
async def test_R3_a_tool_that_was_killed_has_the_same_key_again_and_no_other_has_it(scene: Scene) -> None:
    first = {line["what"]: line["key"] for line in scene.before if line["thread"] == "calls"}
    again = {line["what"]: line["key"] for line in scene.after if line["thread"] == "calls"}
    assert set(first) == {
        *("one", "two", "sync", "sync, second effect"),
        *("inner", "inner sync", "inner sync, second effect"),
    }
    assert again == first
    assert len(set(first.values())) == len(first)
    assert {line["pid"] for line in scene.before} == {scene.victim.pid}
    assert {line["pid"] for line in scene.after} == {scene.heir.pid}
    assert said(scene.results["calls"]) == ["one", "two", "sync", "inner", "inner sync"]


@pytest.mark.asyncio(loop_scope="module")
async def test_F2_effects_in_flight_when_the_worker_is_killed_end_as_they_say(scene: Scene) -> None:
    def times(found: list[dict[str, Any]]) -> Counter[str]:
        return Counter(line["what"] for line in found if line["thread"] == "payments")

    assert times(scene.before) == {"run": 1, "raise": 1, "kept": 1, "past": 1, "table": 1, "table sync": 1}
    assert times(scene.after) == {"run": 1, "past": 1, "table": 1, "table sync": 1}
    run, doubt, kept, table, table_sync = said(scene.results["payments"])
    assert (run, table_sync) == ("paid", "paid")
    assert doubt == f"in doubt since {scene.victim.worker_id}"
    assert kept == f"by {scene.victim.pid}"  # the dead worker's own result
    assert table == "1200ms"  # 0.8 of the heir's lease
    paid = scene.view.rows("SELECT how FROM public.paid ORDER BY 1")
    assert [row["how"] for row in paid] == ["async", "sync"]


@pytest.mark.asyncio(loop_scope="module")
async def test_F3_the_server_itself_ends_a_write_that_hangs(scene: Scene) -> None:
    """Long before anybody would take the worker for dead; and the job goes on from its checkpoint, uncharged."""
    with psycopg.connect(scene.url, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(4242)")
        job = await scene.client.enqueue("steps", {"done": [], "until": 2}, thread_id="h")
        await until(lambda: scene.view.rows(WAITERS) or None, "its checkpoint hangs")
        released = scene.heir.logged("job.released", timeout=6)
        assert (released["job_id"], released["code"]) == (job.job_id, "transient")
        lock.execute("SELECT pg_advisory_unlock(4242)")
    assert await job.result(timeout=15) == {"done": [0, 1], "until": 2}
    assert scene.view.job(job.job_id)["failures"] == 0
