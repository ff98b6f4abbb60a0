"""Workers of different queues, real ones: each takes its own jobs, and what goes astray finds its way."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis
from redis.asyncio import Redis

from support.gates import Gates, until
from support.ledger import bench_on
from threadline import Client, dispatch
from threadline.contract.arq_message import Message, message_id
from threadline.contract.job import new_id
from threadline.contract.keys import Keys

KEYS = Keys()
ONE: dict[str, Any] = {"done": [], "until": 1}


async def test_each_worker_takes_the_jobs_of_its_queues_wherever_they_come_from(
    client: Client, workers: Callable[..., Any], env: dict[str, str], database_url: str
) -> None:
    plain = workers(THREADLINE_WORKER_QUEUES="default")
    deep = workers(THREADLINE_QUEUES="ask=deep", THREADLINE_WORKER_QUEUES="deep")
    gates = Gates(env)

    # By the caller's word, by its map, through Redis alone; an answer and an operation follow the thread.
    named = await client.enqueue("steps", ONE, queue="deep")
    usual = await client.enqueue("steps", ONE)
    for job in (named, usual):
        await job.result(timeout=20)
    async with Client(redis_url=env["REDIS_URL"], queues={"steps": "deep"}) as redis_only:
        carried = await redis_only.enqueue("steps", ONE)
        await carried.result(timeout=20)
    # L2: repeated under a changed map it is in two queues, and one job.
    async with (
        Client(redis_url=env["REDIS_URL"]) as before,
        Client(redis_url=env["REDIS_URL"], queues={"steps": "deep"}) as after,
    ):
        repeated = [await by.enqueue("steps", ONE, idempotency_key="k") for by in (before, after)]
        assert [await job.result(timeout=20) for job in repeated] == [{"done": [0], "until": 1}] * 2
        assert repeated[0].job_id == repeated[1].job_id
    asking = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="t", queue="deep")
    await until(lambda: _in_state(client, asking.job_id, "interrupted"), "it asks")
    answer = await client.resume("t", 7)
    assert await answer.result(timeout=20) == {"done": [7], "until": 1}
    assert (await client.state("t"))["values"]["done"] == [7]
    by = {job.job_id: await _worker_of(client, job.job_id) for job in (named, usual, carried, asking, answer)}
    assert by[usual.job_id] == plain.worker_id
    assert {by[job.job_id] for job in (named, carried, asking, answer)} == {deep.worker_id}

    async with bench_on(database_url, workers=()) as bench:
        assert await bench.sql("SELECT reason FROM threadline.dead_letters") == []

    # O1: a later job of the thread waits for the earlier one in another queue, and is handed on to its own.
    gates.close("order", 0)
    first = await client.enqueue("steps", ONE, thread_id="order", queue="deep")
    await gates.begun("order", 0)
    second = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="order")
    assert (await second.status()).state == "queued"
    gates.open("order", 0)
    await second.result(timeout=20)
    assert [await _worker_of(client, job.job_id) for job in (first, second)] == [deep.worker_id, plain.worker_id]

    assert plain.terminate() == 0
    assert deep.terminate() == 0


async def test_L4_what_went_astray_or_was_lost_comes_to_its_queue(
    client: Client, workers: Callable[..., Any], env: dict[str, str], database_url: str
) -> None:
    """Nobody serves `deep` yet; what is in the wrong queue, or in none, is there when somebody does."""
    plain = workers(THREADLINE_WORKER_QUEUES="default")
    astray = await client.enqueue("steps", ONE, queue="deep")
    lost = await client.enqueue("steps", ONE, queue="deep")
    async with Redis.from_url(env["REDIS_URL"]) as connection, bench_on(database_url, workers=()) as bench:
        deep = KEYS.queue_of("deep")
        assert await connection.zcard(deep) == 2
        # Its wake-up stands in the default queue, as if a worker of 0.1.0 had sent it: given back, and sent to its own.
        await connection.zrem(deep, message_id(astray.job_id, 0, 1))
        wrong = Message(message_id(astray.job_id, 0, 1), [astray.job_id], int(time.time() * 1000))
        await connection.zadd(KEYS.queue, {wrong.message_id: 1})
        await connection.publish(KEYS.wake, "1")
        sent = message_id(astray.job_id, 0, 2)
        await until(lambda: _scored(connection, deep, sent), "the message stands in its own queue")
        assert (await astray.status()).state == "queued"
        # A producer in another language puts every job into the one queue that it knows; the job says where it belongs.
        whole = {"job_id": new_id(), "agent": "steps", "input": ONE, "thread_id": new_id(), "queue": "deep"}
        carrying = Message(whole["job_id"], [whole["job_id"], whole], int(time.time() * 1000))
        await dispatch.send(connection, KEYS, [carrying])
        await until(lambda: _scored(connection, deep, message_id(whole["job_id"], 0, 1)), "it was adopted and sent on")
        # The other one's is gone. Only who serves the queue looks for it there.
        await connection.zrem(deep, message_id(lost.job_id, 0, 1))
        await bench.set(lost.job_id, "dispatched_at = now() - interval '1 minute'")
        serving = workers("--queue", "deep", "--burst", wait=False)
        for job_id in (astray.job_id, lost.job_id, whole["job_id"]):
            await (await client.job(job_id)).result(timeout=30)
        # It ends with its own queue, whatever waits elsewhere.
        assert serving.process.wait(30) == 0
        assert plain.process.poll() is None


async def test_a_dead_workers_job_goes_back_to_its_own_queue(
    client: Client, workers: Callable[..., Any], env: dict[str, str]
) -> None:
    gates = Gates(env)
    gates.close("t", 0)
    plain = workers(THREADLINE_WORKER_QUEUES="default", THREADLINE_LEASE_SECONDS="3")
    first = workers(THREADLINE_WORKER_QUEUES="deep", THREADLINE_LEASE_SECONDS="3")
    job = await client.enqueue("steps", ONE, thread_id="t", queue="deep")
    await gates.begun("t", 0)
    first.kill()
    plain.logged("job.rescued")
    with redis.Redis.from_url(env["REDIS_URL"]) as connection:
        await until(lambda: connection.zcard(KEYS.queue_of("deep")) or None, "it waits in its own queue")
    assert (await job.status()).state == "queued"
    second = workers(THREADLINE_WORKER_QUEUES="deep", THREADLINE_LEASE_SECONDS="3")
    gates.open("t", 0)
    await job.result(timeout=20)
    assert await _worker_of(client, job.job_id) == second.worker_id
    text = plain.metrics()
    assert 'threadline_queue_workers{queue="deep"} 1.0' in text
    assert 'threadline_queue_jobs{queue="default",state="queued"} 0.0' in text


async def _in_state(client: Client, job_id: str, state: str) -> bool:
    return (await (await client.job(job_id)).status()).state == state


def _scored(connection: Redis, key: str, name: str) -> Awaitable[Any]:
    return connection.zscore(key, name)


async def _worker_of(client: Client, job_id: str) -> str:
    """Who ended the job: its claim's event says who it was."""
    job = await client.job(job_id)
    events = [event async for event in job.events()]
    return str([event for event in events if event.type in {"started", "resumed"}][-1].data["worker_id"])
