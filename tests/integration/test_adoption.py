"""L5: a job that a service without Postgres put into Redis is in the ledger soon, or is set aside with its reason."""

from __future__ import annotations

import base64
import json
import pickle
import time
import uuid

import psycopg
import pytest
from arq.connections import ArqRedis

from support.desk import LedgerView
from support.gates import Gates, until
from threadline import Client
from threadline.contract.signature import parse_keys, sign
from threadline.settings import ClientSettings

QUEUE = "threadline:queue"
KEYS = "k1:" + base64.b64encode(b"0123456789abcdef").decode()


def job_of(**more) -> dict:
    usual = {"v": 1, "job_id": uuid.uuid4().hex, "agent": "steps", "input": {"done": [], "until": 2}}
    return {**usual, "thread_id": f"t-{uuid.uuid4().hex[:8]}", "user_id": "default", **more}


@pytest.fixture
async def arq(redis_url):
    """A service that knows nothing but arq."""
    pool = ArqRedis.from_url(redis_url)
    pool.job_serializer = lambda call: json.dumps(call).encode()
    yield pool
    await pool.aclose()


async def put(arq: ArqRedis, job: dict, message_id: str | None = None) -> str:
    sent = await arq.enqueue_job("run_job", job.get("job_id"), job, _queue_name=QUEUE, _job_id=message_id)
    return sent.job_id


async def letter(view: LedgerView, message_id: str) -> str:
    rows = await until(
        lambda: view.rows("SELECT reason FROM dead_letters WHERE message_id = %s", message_id) or None, "a dead letter"
    )
    return rows[0]["reason"]


async def test_L5_jobs_from_redis_alone_run_whoever_sent_them(arq, client, workers, env, database_url) -> None:
    view = LedgerView(database_url)
    async with Client(redis_url=env["REDIS_URL"]) as producer:
        before = await producer.enqueue("steps", {"done": [], "until": 2})  # no worker is up yet
        workers()
        started = time.monotonic()
        assert await before.result(timeout=10) == {"done": [0, 1], "until": 2}
        assert time.monotonic() - started < 3
        job = job_of()
        await put(arq, job)
        await until(lambda: view.rows("SELECT 1 FROM jobs WHERE job_id = %s", job["job_id"]) or None, "it is adopted")
        done = await client.job(job["job_id"])
        assert await done.result(timeout=5) == {"done": [0, 1], "until": 2}
        # The same again is the same job.
        await put(arq, job)
        # An agent's text input and options travel, too.
        later = await producer.enqueue("chat", "hello", user_id="u", metadata={"n": 1})
        assert (await later.result(timeout=5))["messages"][-1]["data"]["content"] == "1: hello"
        assert (await (await client.job(later.job_id)).status()).metadata == {"n": 1}
    await until(lambda: queue_is_empty(arq), "the repeated message is gone")
    assert len(view.rows("SELECT 1 FROM jobs WHERE agent = 'steps'")) == 2
    assert view.rows("SELECT 1 FROM dead_letters") == []


async def queue_is_empty(arq: ArqRedis) -> bool:
    return not await arq.zcard(QUEUE)


async def test_L5_waiting_messages_are_adopted_while_all_slots_are_full(
    arq, client, workers, env, database_url
) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers("--concurrency", "1")
    gates.close("long", 0)
    long = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="long")
    await gates.begun("long", 0)
    jobs = [job_of() for _ in range(30)]
    for number, job in enumerate(jobs):
        await put(arq, job, message_id=f"custom:{number}" if number % 2 else None)
    bad = await put(arq, job_of(agent="no such agent name!"))
    started = time.monotonic()
    await until(lambda: len(view.rows("SELECT 1 FROM jobs WHERE state = 'queued'")) == 30 or None, "all are adopted")
    assert time.monotonic() - started < 3
    assert "InvalidJob" in await letter(view, bad)
    # Nothing of them is in Redis alone any more: it may lose everything.
    await until(lambda: only_wake_ups(arq, jobs), "the messages are replaced by wake-ups")
    await arq.flushdb()
    gates.open("long", 0)
    assert await long.result(timeout=10)
    view.rows("UPDATE jobs SET dispatched_at = NULL WHERE state = 'queued'")  # as the sweep does after its ten seconds
    for job in jobs:
        assert await (await client.job(job["job_id"])).result(timeout=20)
        assert gates.steps(job["thread_id"]) == [0, 1]


async def test_L5_a_job_behind_thousands_of_plain_messages_is_adopted_within_a_second(
    arq, client, workers, env, database_url
) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    workers("--concurrency", "1")
    gates.close("long", 0)
    long = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="long")
    await gates.begun("long", 0)
    now = int(time.time() * 1000)
    async with arq.pipeline(transaction=True) as pipe:
        for number in range(5_000):
            name = f"wake-up:{number}:1" if number % 2 else f"plain {number}"
            body = {"t": None, "f": "run_job", "a": [f"job-{number}"], "k": {}, "et": now}
            pipe.set(f"arq:job:{name}", json.dumps(body))
            pipe.zadd(QUEUE, {name: now})
        await pipe.execute()
    for _ in range(2):  # as well when the worker has seen the backlog before
        job = job_of()
        await put(arq, job)
        started = time.monotonic()
        await until(
            lambda j=job: view.rows("SELECT 1 FROM jobs WHERE job_id = %s", j["job_id"]) or None, "it is adopted"
        )
        # A second where nothing else keeps the machine busy; page by page, one each round, it would be six.
        assert time.monotonic() - started < 5
    assert await arq.zcard(QUEUE) >= 5_000
    await arq.flushdb()
    gates.open("long", 0)
    assert await long.result(timeout=10)


async def only_wake_ups(arq: ArqRedis, jobs: list[dict]) -> bool:
    names = {name.decode() for name in await arq.zrange(QUEUE, 0, -1)}
    return names == {f"{job['job_id']}:0:1" for job in jobs}


async def test_L5_a_message_that_can_be_no_job_is_set_aside_once(arq, workers, env, database_url) -> None:
    view = LedgerView(database_url)
    worker = workers()
    other_job = job_of() | {"job_id": "another"}
    bad = {
        "no job": await put(arq, job_of(thread_id="no spaces, please")),
        "no input": await put(arq, job_of(input=7)),
        "other id": (await arq.enqueue_job("run_job", "not-this", other_job, _queue_name=QUEUE)).job_id,
        "no object": (await arq.enqueue_job("run_job", "x", ["a", "list"], _queue_name=QUEUE)).job_id,
        "no id": (await arq.enqueue_job("run_job", {"a": "dict"}, _queue_name=QUEUE)).job_id,
        "nothing": (await arq.enqueue_job("run_job", _queue_name=QUEUE)).job_id,
        "other function": (await arq.enqueue_job("rm_rf", "x", _queue_name=QUEUE)).job_id,
        "keywords": (await arq.enqueue_job("run_job", "x", job=1, _queue_name=QUEUE)).job_id,
    }
    reasons = {name: await letter(view, message_id) for name, message_id in bad.items()}
    assert "thread id" in reasons["no job"]
    assert "input is a int" in reasons["no input"]
    await until(lambda: queue_is_empty(arq), "none is tried again")
    assert {entry["message_id"] for entry in worker.entries if "message_id" in entry} == set(bad.values())
    assert await arq.keys("arq:*") == []
    # One that waited for longer than messages are kept.
    old = job_of()
    body = {
        "t": None,
        "f": "run_job",
        "a": [old["job_id"], old],
        "k": {},
        "et": int(time.time() * 1000) - 31 * 86_400_000,
    }
    await arq.set("arq:job:old", json.dumps(body))
    await arq.zadd(QUEUE, {"old": body["et"]})
    assert "longer ago than messages are kept (30 days)" in await letter(view, "old")
    assert view.rows("SELECT 1 FROM jobs") == []
    # A thread of somebody else.
    await put(arq, mine := job_of(user_id="me"))
    await until(lambda: view.rows("SELECT 1 FROM jobs WHERE job_id = %s", mine["job_id"]) or None, "it is adopted")
    assert "ThreadOwnedByAnother" in await letter(
        view, await put(arq, job_of(user_id="you", thread_id=mine["thread_id"]))
    )


async def test_L5_with_enqueue_keys_a_signature_is_required(arq, workers, env, database_url) -> None:
    view = LedgerView(database_url)
    workers(THREADLINE_ENQUEUE_KEYS=KEYS)
    keys = parse_keys(KEYS)
    signed = sign(job_of(), keys)
    assert "not signed" in await letter(view, await put(arq, job_of()))
    assert "does not match" in await letter(view, await put(arq, {**sign(job_of(), keys), "user_id": "root"}))
    foreign = sign(job_of(), parse_keys("k2:" + base64.b64encode(b"fedcba9876543210").decode()))
    assert "not signed with a known key" in await letter(view, await put(arq, foreign))
    assert view.rows("SELECT 1 FROM jobs") == []
    await put(arq, signed)
    await until(lambda: view.rows("SELECT 1 FROM jobs WHERE job_id = %s", signed["job_id"]) or None, "it is adopted")
    async with Client(redis_url=env["REDIS_URL"], settings=ClientSettings(enqueue_keys=keys)) as producer:
        job = await producer.enqueue("steps", {"done": [], "until": 1})
        assert await job.result(timeout=10) == {"done": [0], "until": 1}


async def test_L5_a_message_survives_a_database_that_cannot_take_it(arq, workers, env, database_url) -> None:
    view = LedgerView(database_url)
    workers()
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        job = job_of()
        await put(arq, job)
        await until(lambda: tried(arq, job, 1), "a worker has tried")
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off".encode())
        connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await until(
        lambda: view.rows("SELECT 1 FROM jobs WHERE job_id = %s AND state = 'succeeded'", job["job_id"]) or None,
        "it is adopted and run",
    )
    assert view.rows("SELECT 1 FROM dead_letters") == []


async def tried(arq: ArqRedis, job: dict, times: int) -> bool:
    counts = [int(await arq.get(key)) for key in await arq.keys("arq:retry:*")]
    return max(counts, default=0) >= times


async def test_hostile_messages_are_removed_and_counted_and_the_worker_goes_on(
    arq, client, workers, env, database_url
) -> None:
    view = LedgerView(database_url)
    now = int(time.time() * 1000) - 1000
    call = {"t": None, "f": "run_job", "a": ["x"], "k": {}, "et": now}
    bodies = {
        "pickle": pickle.dumps({**call, "f": "run_job"}),
        "garbage": b"\xff\x00garbage",
        "list": b"[1,2]",
        "args": json.dumps({**call, "a": 7}).encode(),
        "time": json.dumps({**call, "et": "yesterday"}).encode(),
        "far": json.dumps({**call, "et": 10**30}).encode(),
        "try": json.dumps({**call, "t": "once"}).encode(),
        "nul\0id": b"{}",
    }
    async with arq.pipeline() as pipe:
        for name, body in bodies.items():
            pipe.set(f"arq:job:{name}", body)
            pipe.zadd(QUEUE, {name: now})
        pipe.zadd(QUEUE, {b"\xff\xfe": now, "list-key": now, "retry-key": now, "gone": now, "gone-wake-up:3:1": now})
        pipe.set(b"arq:job:\xff\xfe", json.dumps(call))
        pipe.lpush("arq:job:list-key", "x")
        pipe.set("arq:job:retry-key", json.dumps(call))
        pipe.lpush("arq:retry:retry-key", "x")
        await pipe.execute()
    worker = workers()
    job = await client.enqueue("steps", {"done": [], "until": 2})
    assert await job.result(timeout=15) == {"done": [0, 1], "until": 2}
    await until(lambda: queue_is_empty(arq), "all are removed")
    assert worker.process.poll() is None
    assert worker.seen().count("queue.purged") == len(bodies) + 5
    # Without any other, too.
    await arq.lpush("arq:job:list-key-again", "x")
    await arq.zadd(QUEUE, {"list-key-again": now})
    await until(lambda: queue_is_empty(arq), "it is removed")
    letters = {row["message_id"]: row["reason"] for row in view.rows("SELECT message_id, reason FROM dead_letters")}
    assert set(letters) == {*bodies, "\ufffd\ufffd", "list-key", "list-key-again", "retry-key", "gone"} - {
        "nul\0id"
    } | {"nul\ufffdid"}
    assert await arq.keys("arq:*") == []
    counted = [line for line in worker.metrics().splitlines() if line.startswith("threadline_messages_purged")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == len(bodies) + 6
    assert len(counted) <= 6  # the label has few values, whatever is sent


async def test_messages_in_progress_elsewhere_do_not_hide_the_queue(arq, client, workers, env) -> None:
    """With one slot a poll that reads one message would see nothing but the one that a dead worker had in hand."""
    now = int(time.time() * 1000) - 60_000
    for number in range(5):
        await arq.set(f"arq:job:stuck{number}", json.dumps({"t": None, "f": "run_job", "a": ["x"], "k": {}, "et": now}))
        await arq.psetex(f"arq:in-progress:stuck{number}", 600_000, b"1")
        await arq.zadd(QUEUE, {f"stuck{number}": now})
    workers("--concurrency", "1")
    jobs = [await client.enqueue("steps", {"done": [], "until": 1}) for _ in range(3)]
    for job in jobs:
        assert await job.result(timeout=5) == {"done": [0], "until": 1}


async def test_a_wake_up_that_met_a_locked_job_is_repeated_at_once(client, workers, env, database_url) -> None:
    """A claim skips a locked row; the message is used up then, and the sweep misses it only after ten seconds."""
    job = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t")
    with psycopg.connect(database_url) as row:
        row.execute("SELECT 1 FROM threadline.jobs WHERE job_id = %s FOR UPDATE", (job.job_id,))
        worker = workers(THREADLINE_LOG_LEVEL="debug")
        await until(lambda: [e for e in worker.entries if e.get("claimed") is False] or None, "a claim has failed")
        row.rollback()
    started = time.monotonic()
    assert await job.result(timeout=10) == {"done": [0], "until": 1}
    assert time.monotonic() - started < 3
