"""L5: the jobs that messages carry are found behind whatever waits before them, at the cost of a page of ids."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from threadline.contract.keys import Keys
from threadline_worker import carried
from threadline_worker.carried import CarriedJobs

QUEUE = Keys().queue


@pytest.fixture
async def store(redis_url) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as connection:
        yield connection


async def put(store: Redis, *messages: tuple[str, list], score: int | None = None) -> None:
    now = int(time.time() * 1000)
    async with store.pipeline(transaction=True) as pipe:
        for number, (message_id, arguments) in enumerate(messages):
            body = {"t": None, "f": "run_job", "a": arguments, "k": {}, "et": now}
            pipe.set(f"arq:job:{message_id}", json.dumps(body))
            pipe.zadd(QUEUE, {message_id: (now - 60_000 if score is None else score) + number})
        await pipe.execute()


def job(job_id: str) -> tuple[str, list]:
    return job_id, [job_id, {"job_id": job_id}]


async def round_of(jobs: CarriedJobs, store: Redis, seconds: float = 60) -> list[str]:
    """What one round finds; each is taken out, as adoption does."""
    found = []
    async for message_id, job_id, content in jobs.waiting(seconds):
        assert content == {"job_id": job_id}
        await store.zrem(QUEUE, message_id)
        await store.delete(f"arq:job:{message_id}")
        found.append(message_id)
    return found


async def commands(store: Redis) -> dict[str, int]:
    """How often Redis ran each of the commands that a walk may use."""
    stats = await store.info("commandstats")
    names = ("time", "zrangebyscore", "strlen", "mget")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names}


async def cost(jobs: CarriedJobs, store: Redis) -> tuple[list[str], dict[str, int]]:
    before = await commands(store)
    found = await round_of(jobs, store)
    after = await commands(store)
    return found, {name: after[name] - before[name] for name in after}


async def test_L5_no_message_is_looked_into_twice(store) -> None:
    jobs = CarriedJobs(store, Keys())
    assert await cost(jobs, store) == ([], {"time": 1, "zrangebyscore": 1, "strlen": 0, "mget": 0})  # an idle second
    plain = [(f"j{number}:1:1", [f"j{number}"]) for number in range(4_000)]
    plain += [(f"custom{number}", [f"j{number}"]) for number in range(1_000)]
    await put(store, *plain, job("last"))
    found, spent = await cost(jobs, store)
    assert (found, spent["strlen"]) == (["last"], 5_001)
    await put(store, job("later"))
    found, spent = await cost(jobs, store)
    assert found == ["later"]
    # Six pages of ids; one message was new, and none of the five thousand was touched.
    assert spent == {"time": 1, "zrangebyscore": 6, "strlen": 1, "mget": 1}


async def test_L5_the_same_id_may_carry_a_job_again(store) -> None:
    jobs = CarriedJobs(store, Keys())
    for _ in range(3):
        await put(store, job("again"))
        assert await round_of(jobs, store) == ["again"]
    # Also one that was plain once, as soon as it has left the queue.
    await put(store, ("plain", ["x"]))
    assert await round_of(jobs, store) == []
    await store.zrem(QUEUE, "plain")
    assert await round_of(jobs, store) == []
    await put(store, job("plain"))
    assert await round_of(jobs, store) == ["plain"]


async def test_L5_a_round_that_has_used_up_its_time_goes_on_later(store) -> None:
    jobs = CarriedJobs(store, Keys())
    await put(store, *[job(f"j{number}") for number in range(5)])
    assert [await round_of(jobs, store, 0) for _ in range(6)] == [["j0"], ["j1"], ["j2"], ["j3"], ["j4"], []]


async def test_L5_what_moves_up_is_not_passed_over(store, monkeypatch) -> None:
    monkeypatch.setattr(carried, "_PAGE", 3)
    jobs = CarriedJobs(store, Keys())
    await put(store, *[message for n in range(9) for message in (job(f"j{n}"), (f"p{n}", ["x"]))])
    assert await round_of(jobs, store) == [f"j{number}" for number in range(9)]


async def test_L5_what_an_error_interrupted_comes_again(store) -> None:
    jobs = CarriedJobs(store, Keys())
    await put(store, ("plain", ["x"]), job("a"), job("b"))
    found = jobs.waiting(60)
    assert (await anext(found))[0] == "a"
    await found.aclose()  # Postgres was away: the message stays
    assert await round_of(jobs, store) == ["a", "b"]


async def test_L5_a_message_that_is_not_due_or_no_call_waits(store) -> None:
    jobs = CarriedJobs(store, Keys())
    await put(store, job("later"), score=int(time.time() * 1000) + 60_000)
    now = int(time.time() * 1000)
    await store.zadd(QUEUE, {"list": now - 9, b"\xff\xfe": now - 8, "gone": now - 7, "pickle": now - 6})
    await store.lpush("arq:job:list", "x")
    await store.set("arq:job:pickle", b"\x80\x04.")
    assert await round_of(jobs, store) == []


@pytest.mark.parametrize("seed", range(3))
async def test_L5_whatever_comes_and_goes_meanwhile_each_job_is_found_once(store, monkeypatch, seed) -> None:
    monkeypatch.setattr(carried, "_PAGE", 4)
    monkeypatch.setattr(carried, "_BODIES", 2)
    chance = random.Random(seed)
    jobs = CarriedJobs(store, Keys())
    found: list[str] = []
    sent = 0
    for _ in range(60):
        for _ in range(chance.randrange(4)):
            sent += 1
            message = job(f"j{sent}") if chance.random() < 0.4 else (f"p{sent}", ["x"])
            await put(store, message, score=int(time.time() * 1000) - chance.randrange(1_000_000))
        for raw in await store.zrange(QUEUE, 0, -1):
            if raw.startswith(b"p") and chance.random() < 0.1:  # a worker takes a plain one
                await store.zrem(QUEUE, raw)
        found += await round_of(jobs, store, chance.choice([0, 60]))
    while left := [raw for raw in await store.zrange(QUEUE, 0, -1) if raw.startswith(b"j")]:
        before = len(found)
        found += await round_of(jobs, store) + await round_of(jobs, store)
        assert len(found) > before, left
    assert len(found) == len(set(found))
    assert all(name.startswith("j") for name in found)


def test_bodies_in_memory_have_a_bound() -> None:
    sizes = {"a": 5_000_000, "b": 4_000_000, "c": 50_000_000, "d": 1, "e": 1}
    assert list(carried._batches(sizes)) == [["a"], ["b"], ["c"], ["d", "e"]]
    assert [len(batch) for batch in carried._batches({str(number): 1 for number in range(1_001)})] == [500, 500, 1]
