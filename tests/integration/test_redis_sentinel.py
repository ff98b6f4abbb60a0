"""REDIS_URL may name Sentinels: a failover moves clients, workers and followers to the new primary by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection

from support.gates import Gates, until
from support.logs import Reader
from support.valkeys import PRIMARY, Sentinels, sentinels
from threadline import BackendUnavailable, Client, sync
from threadline.contract.events import EventId
from threadline.errors import ConfigurationError
from threadline.redis_client import REDIS_ERRORS, connect_redis, reason
from threadline.redis_sentinel import SentinelAddress

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25"}


@pytest.fixture(scope="module")
def house() -> Iterator[Sentinels]:
    with sentinels() as made:
        yield made


def test_a_url_is_read_as_others_read_it() -> None:
    url = "rediss+sentinel://app:p%40w@s1:26379,[::1],s3:1/my%20primary/2?sentinel_username=w&sentinel_password=x"
    address = SentinelAddress.parse(url + "&ssl_ca_certs=/ca.pem&socket_timeout=9")
    assert address.sentinels == [("s1", 26379), ("::1", 26379), ("s3", 1)]
    assert (address.master, address.tls) == ("my primary", True)
    assert address.to_primary == {
        "username": "app", "password": "p@w", "db": 2, "ssl_ca_certs": "/ca.pem", "socket_timeout": 9.0
    }  # fmt: skip
    assert address.to_sentinels == {"username": "w", "password": "x", "ssl_ca_certs": "/ca.pem"}


def test_tls_is_for_the_servers_and_for_the_sentinels() -> None:
    pool = connect_redis("rediss+sentinel://host/primary?ssl_check_hostname=true").connection_pool
    assert isinstance(pool.make_connection(), SSLConnection)
    assert isinstance(pool.sentinel_manager.sentinels[0].connection_pool.make_connection(), SSLConnection)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://host:26379",
        "redis+sentinel://host:26379/",
        "redis+sentinel://host:99999/primary",
        "redis+sentinel://a b:c:d/primary",
        "redis+sentinel://:se/cret@host/primary",
        "redis+sentinel://host/primary/first",
        "redis+sentinel://host/primary?socket_timeout=soon-secret",
        "sentinel+sentinel://host/primary",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\+sentinel://\[user:password@\]host:26379") as refused:
        connect_redis(url)
    assert "secret" not in str(refused.value)
    assert "se/cret" not in str(refused.value)


async def test_what_is_wrong_with_the_sentinels_is_told(house: Sentinels) -> None:
    wrong = {
        house.url_of("nobody"): "no Sentinel names a healthy primary 'nobody'",
        house.url_of(PRIMARY, sentinel_password="no"): f"127.0.0.1:{house.watchers[0].port} - AuthenticationError",
        house.url.replace("app:", "app:no"): "invalid username-password pair",
    }
    for url, told in wrong.items():
        client = connect_redis(url)
        with pytest.raises(REDIS_ERRORS) as raised:
            await client.ping()
        assert told in reason(raised.value)
        await client.aclose()


async def test_a_failover_moves_worker_clients_and_followers(house: Sentinels, workers, env, database_url) -> None:
    gates, old = Gates(env), house.primary()
    worker = workers(REDIS_URL=house.url, **QUICK)
    settings = {"redis_url": house.url, "database_url": database_url}
    async with Client(**settings) as client:
        gates.close("t", 1)
        job = await client.enqueue("steps", {"done": [], "until": 4}, thread_id="t")
        follower = Reader(job.events())
        await gates.begun("t", 1)
        await until(lambda: any(event.type == "updates" for event in follower.events), "the first step was heard of")

        old.kill()
        during = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="u")
        gates.open("t", 1)
        await until(lambda: _is_primary(house, old), "the Sentinel has moved", 10)

        assert await job.result(timeout=20) == {"done": [0, 1, 2, 3], "until": 4}
        assert await during.result(timeout=20) == {"done": [0], "until": 1}
        await follower.end()
        after = await client.enqueue("steps", {"done": [], "until": 2}, thread_id="v")
        assert [event.type async for event in after.events()][-1] == "succeeded"
    assert gates.steps("t") == [0, 1, 2, 3]
    assert worker.process.poll() is None
    assert_whole_or_told(follower.events)
    with sync.Client(**settings) as blocking:
        assert blocking.enqueue("steps", {"done": [], "until": 1}).result(timeout=20) == {"done": [0], "until": 1}
    told = subprocess.run(
        [sys.executable, "-m", "threadline.cli", "watch", after.job_id, "--json"],
        env={**env, "REDIS_URL": house.url}, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert '"succeeded"' in told.stdout.splitlines()[-1]


def _is_primary(house: Sentinels, old: Any) -> bool:
    return house.primary() is not old


def assert_whole_or_told(heard: list[Any]) -> None:
    """Each event once and in order; where an epoch's numbers leave something out, or a transition's `prev` names an
    event that did not come, a `gap` says so."""
    assert heard[-1].type == "succeeded"
    placed = [event for event in heard if event.position is not None]
    assert placed == sorted(placed, key=lambda event: event.position)
    for one, next_ in pairwise(heard):
        if one.type == "gap" or next_.type == "gap":
            continue
        follows = next_.position == EventId(one.position.epoch, one.position.n + 1)
        assert follows or next_.prev == one.id, (one, next_)


async def test_without_any_sentinel_the_error_names_what_was_asked(house: Sentinels) -> None:
    async with Client(redis_url="redis+sentinel://127.0.0.1:1/main") as client:
        with pytest.raises(BackendUnavailable, match=r"no Sentinel names a healthy primary 'main' \(127.0.0.1:1 - "):
            await client.enqueue("steps", {"done": [], "until": 1})
