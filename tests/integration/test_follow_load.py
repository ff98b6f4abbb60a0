"""Who reads slowly, or not at all, costs nobody anything; many readers and any cancellation leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from support.logs import KEYS, Log, Reader, log_on, shown
from support.servers import controlled_servers
from threadline.contract.events import encode_event
from threadline.log import follow as module
from threadline.log.follow import follow
from threadline.redis_client import connect_redis

SUBSCRIBERS = 200
_KIB = 1024


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with log_on(redis_url) as made:
        yield made


@pytest.fixture(scope="module")
def strict_redis() -> Iterator[str]:
    """A Redis of one's own that cuts a subscriber off behind 512 KiB."""
    with controlled_servers() as servers:
        yield servers.urls.redis_url


@pytest.fixture
async def strict(strict_redis: str) -> AsyncIterator[Log]:
    async with log_on(strict_redis) as made:
        limit = f"pubsub {512 * _KIB} {256 * _KIB} 60"
        await made.redis.config_set("client-output-buffer-limit", limit)
        yield made


async def test_two_hundred_subscribers_of_one_job_get_everything(log: Log) -> None:
    await log.add(("1-1", "started"), "1-2", "1-3")
    clients = [connect_redis(log.url) for _ in range(SUBSCRIBERS)]
    readers = [Reader(follow(client, KEYS, log.job_id)) for client in clients]
    await log.heard(SUBSCRIBERS)
    for n in range(4, 24):
        await log.add(f"1-{n}")
    await log.add(("2-1", "succeeded"))
    whole = ["0-1", *(f"1-{n}" for n in range(1, 24)), "2-1"]
    for reader in readers:
        assert await reader.end(30) == whole
    await log.heard(0)
    for client in clients:
        await client.aclose()


@contextlib.contextmanager
def deaf_subscriber(log: Log) -> Iterator[socket.socket]:
    """Subscribes and never reads again."""
    url = urlsplit(log.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _KIB)
        deaf.connect((url.hostname, url.port))
        deaf.sendall(f"AUTH {url.password}\r\nSUBSCRIBE {log.key}\r\n".encode())
        yield deaf


#: Below the 16 KiB from which Valkey shares a message between its readers and counts almost nothing for it.
_SMALL, _LARGE = 12 * _KIB, 64 * _KIB


async def publish(log: Log, numbers: range, size: int = _SMALL) -> float:
    """Append events one by one, as a publisher does; the median seconds of an append."""
    took = []
    for n in numbers:
        text = encode_event(log.event(f"1-{n}", data="x" * size))
        before = time.perf_counter()
        await log.writer.append(log.job_id, log.thread_id, 1, [(n, text)])
        took.append(time.perf_counter() - before)
    return sorted(took)[len(took) // 2]


async def test_P4_a_subscriber_that_never_reads_is_cut_off_and_slows_nobody(strict: Log) -> None:
    undisturbed = await publish(strict, range(1, 201))
    with deaf_subscriber(strict):
        await strict.heard(1)
        disturbed = await publish(strict, range(201, 801))  # more than the kernel's buffers hold
        await strict.heard(0)  # Redis has cut it off
    assert disturbed < undisturbed * 3 + 0.002


async def test_P4_a_reader_that_was_cut_off_for_slowness_misses_nothing(
    strict: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.005)
    client = connect_redis(strict.url, socket_read_size=4 * _KIB)
    async with contextlib.aclosing(follow(client, KEYS, strict.job_id)) as stream:
        await publish(strict, range(1, 2))
        events = [await anext(stream)]
        await strict.heard(1)
        await publish(strict, range(2, 802))  # meanwhile the reader is busy with its first event
        await strict.heard(0)
        await strict.add(("2-1", "succeeded"))
        events += [event async for event in stream]
    assert shown(events) == [*(f"1-{n}" for n in range(1, 802)), "2-1"]
    await client.aclose()


async def test_P4_cancelled_at_any_await_an_iteration_leaves_nothing(log: Log, redis_url: str) -> None:
    """Each round lets the follower take one step more; redis-py may forget a cancellation before Python 3.12."""
    await log.add(("1-1", "started"), *(f"1-{n}" for n in range(2, 120)))
    tasks, before = asyncio.all_tasks(), len(await log.redis.client_list())
    for steps in range(150):
        async with connect_redis(redis_url) as client:
            reader = Reader(follow(client, KEYS, log.job_id))
            for _ in range(steps):
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await reader.stop()
            assert client.connection_pool._in_use_connections == set()
        del reader
    async with asyncio.timeout(5):
        while len(await log.redis.client_list()) != before:  # the server notices a closed socket in its own time
            await asyncio.sleep(0.002)
    assert asyncio.all_tasks() == tasks


async def test_pages_of_large_events_stay_small(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis holds a whole answer in memory: five hundred events of a MiB must not be one."""
    await publish(log, range(1, 201), _LARGE)
    asked: list[int] = []
    real = Redis.xrange

    async def counting(self: Redis, name: str, **how: object) -> object:
        page = await real(self, name, **how)  # type: ignore[arg-type]
        asked.append(len(page))
        return page

    monkeypatch.setattr(Redis, "xrange", counting)
    await log.add(("2-1", "succeeded"))
    assert len(await log.follow().end()) == 201
    assert max(asked[1:]) * _LARGE <= 2_000_000
