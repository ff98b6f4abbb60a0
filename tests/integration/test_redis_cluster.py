"""A Redis Cluster cannot carry arq's transactions: whoever is pointed at one is told so, and what to use instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.logs import Reader
from support.valkeys import Configured, a_cluster
from threadline import BackendUnavailable, Client
from threadline.cli.doctor.check import Level
from threadline.cli.doctor.redis import check_redis
from threadline.contract.keys import Keys
from threadline.redis_client import CLUSTER
from threadline.settings import ClientSettings

OF_THE_SECOND = 8192


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Configured]]:
    with a_cluster(2) as made:
        yield made


def test_a_worker_refuses_a_cluster_at_its_start(nodes: list[Configured], env: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "threadline.cli", "worker"],
        env={**env, "REDIS_URL": nodes[0].url}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert CLUSTER in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_doctor_fails_for_a_cluster_and_says_what_to_use(nodes: list[Configured]) -> None:
    found = {check.name: check for check in await check_redis(ClientSettings(redis_url=nodes[0].url))}
    assert found["redis cluster"].level is Level.FAIL
    assert "Sentinel" in found["redis cluster"].advice


async def test_a_producer_is_told_instead_of_a_slot(nodes: list[Configured]) -> None:
    async with Client(redis_url=nodes[0].url) as client:
        with pytest.raises(BackendUnavailable, match="REDIS_URL is a Redis Cluster"):
            await client.enqueue("steps", {"done": [], "until": 1})
        elsewhere = next(name for name in map(str, range(100)) if _slot(nodes[0], name) >= OF_THE_SECOND)
        reader = Reader((await client.job(elsewhere)).events())
        with pytest.raises(BackendUnavailable, match="REDIS_URL is a Redis Cluster"):
            await reader.end()


def _slot(node: Configured, job_id: str) -> int:
    return int(node.ask("CLUSTER", "KEYSLOT", Keys().events(job_id)))
