"""Both servers behind TLS: clients and workers verify name and authority, and say in one line what does not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from support.tls_front import Authority, TlsFront
from support.workers import Workers
from threadline import BackendUnavailable, Client


class Encrypted(NamedTuple):
    redis: TlsFront
    postgres: TlsFront
    redis_url: str
    database_url: str


def through(url: str, front: TlsFront, query: str, scheme: str, host: str = "localhost") -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(scheme=scheme, netloc=f"{login}@{host}:{front.port}", query=query).geturl()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def encrypted(redis_url: str, database_url: str, authority: Authority) -> AsyncIterator[Encrypted]:
    certificate = authority.issue("localhost")
    async with TlsFront(redis_url, certificate) as redis, TlsFront(database_url, certificate) as postgres:
        yield Encrypted(
            redis,
            postgres,
            through(redis_url, redis, f"ssl_ca_certs={authority.file}&ssl_check_hostname=true", "rediss"),
            through(database_url, postgres, f"sslmode=verify-full&sslrootcert={authority.file}", "postgresql"),
        )


async def test_a_job_runs_through_tls_from_end_to_end(encrypted: Encrypted, env: dict[str, str]) -> None:
    urls = {"REDIS_URL": encrypted.redis_url, "DATABASE_URL": encrypted.database_url}
    async with Client(redis_url=encrypted.redis_url, database_url=encrypted.database_url) as client:
        with Workers({**env, **urls}) as workers:
            worker = workers.start(wait=False)
            job = await client.enqueue("steps", {"done": [], "until": 2})
            assert await job.result(timeout=30) == {"done": [0, 1], "until": 2}
            assert [event.type async for event in job.events()][-1] == "succeeded"
            worker.process.terminate()
    assert encrypted.redis.connections >= 2
    assert encrypted.postgres.connections >= 4  # the client's, and the worker's pools, beat and sweep


async def test_a_name_that_is_not_the_certificates_is_refused(encrypted: Encrypted, authority: Authority) -> None:
    elsewhere = encrypted.database_url.replace("@localhost:", "@127.0.0.1:")
    async with Client(database_url=elsewhere) as client:
        with pytest.raises(BackendUnavailable, match=r"certificate for \"localhost\".* does not match host name"):
            await client.jobs()
    elsewhere = encrypted.redis_url.replace("@localhost:", "@127.0.0.1:")
    async with Client(redis_url=elsewhere) as client:
        with pytest.raises(BackendUnavailable, match=r"certificate is not valid for '127\.0\.0\.1'"):
            await client.enqueue("steps", {"done": [], "until": 1})


async def test_an_authority_that_nobody_trusts_is_refused(encrypted: Encrypted, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").file
    trusted = str(tmp_path / "authority.pem")
    async with Client(database_url=encrypted.database_url.replace(trusted, str(other))) as client:
        with pytest.raises(BackendUnavailable, match="certificate verify failed"):
            await client.jobs()
    async with Client(redis_url=encrypted.redis_url.replace(trusted, str(other))) as client:
        with pytest.raises(BackendUnavailable, match=r"(?i)certificate.verify.failed"):
            await client.enqueue("steps", {"done": [], "until": 1})


async def test_a_client_that_does_not_encrypt_is_told_so_in_one_line(encrypted: Encrypted) -> None:
    plain = encrypted.database_url.replace("sslmode=verify-full", "sslmode=disable")
    async with Client(database_url=plain) as client:
        with pytest.raises(BackendUnavailable) as caught:
            await client.jobs()
    assert "\n" not in str(caught.value)
    async with Client(redis_url=encrypted.redis_url.replace("rediss://", "redis://").partition("?")[0]) as client:
        with pytest.raises(BackendUnavailable) as caught:
            await client.enqueue("steps", {"done": [], "until": 1})
    assert "\n" not in str(caught.value)
