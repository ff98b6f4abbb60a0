"""The blocking client leaves no thread and no connection, whoever interrupts, forks, closes or forgets it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest
import redis as redis_py

from support.ledger import cloned, emptied
from support.waiting import interrupt_when, soon
from threadline import (
    BackendUnavailable,
    ConfigurationError,
    InvalidJob,
    JobNotFound,
    NeedsDatabase,
)
from threadline.contract.keys import Keys
from threadline.sync import Client, Job
from threadline_worker.embedded import ServerUrls

KEYS = Keys()


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
def database_url(shared: str) -> str:
    return emptied(shared)


@pytest.fixture
def client(redis_url: str, database_url: str) -> Iterator[Client]:
    before = threading.enumerate()
    with Client(redis_url=redis_url, database_url=database_url) as made:
        yield made
    # No loop is left that was not there; whatever else it held would warn, and warnings are errors here.
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []
    gc.collect()


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(redis_url) as made:
        yield made


def listeners(redis: redis_py.Redis, job: Job) -> int:
    """How many connections follow the job."""
    return int(redis.pubsub_numsub(KEYS.events(job.job_id))[0][1])


def sessions(database_url: str) -> int:
    """How many connections clients have to this database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'threadline-client'",
            (urlsplit(database_url).path[1:],),
        ).fetchone()
    assert row is not None
    return int(row[0])


# Threads and loops


def test_one_client_serves_many_threads(client: Client, database_url: str) -> None:
    def ask(n: int) -> tuple[str, str]:
        job = client.enqueue("steps", "a", thread_id=f"t-{n % 5}")
        return job.job_id, job.status().job_id

    with ThreadPoolExecutor(16) as pool:
        asked = list(pool.map(ask, range(100)))
    assert len({job_id for job_id, _ in asked}) == 100
    assert all(job_id == same for job_id, same in asked)
    assert sum(thread.name == "threadline-client" for thread in threading.enumerate()) == 1
    assert 1 <= sessions(database_url) <= 5


def test_many_threads_may_begin_at_once(redis_url: str) -> None:
    with Client(redis_url=redis_url) as client:
        together = threading.Barrier(16)

        def ask(_: int) -> str:
            together.wait()
            return client.enqueue("steps", "a").job_id

        with ThreadPoolExecutor(16) as pool:
            assert len(set(pool.map(ask, range(16)))) == 16
        assert sum(thread.name == "threadline-client" for thread in threading.enumerate()) == 1


async def test_a_thread_with_a_running_loop_may_call(client: Client) -> None:
    job = client.enqueue("steps", "a")
    assert next(job.events()).type == "queued"
    assert job.status().state == "queued"
    await asyncio.sleep(0)


def test_the_callers_context_is_that_of_the_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextvars import ContextVar

    from threadline.calls.control import Control

    request_id: ContextVar[str] = ContextVar("request_id", default="")
    seen = []

    async def jobs(*_arguments: object, **_more: object) -> list[object]:
        seen.append(request_id.get())
        return []

    monkeypatch.setattr(Control, "jobs", jobs)
    request_id.set("r-1")
    client.jobs()
    assert seen == ["r-1"]


# Iterations


def test_leaving_an_iteration_leaves_nothing(client: Client, redis: redis_py.Redis) -> None:
    job = client.enqueue("steps", "a")
    for event in job.events():
        assert event.type == "queued"
        assert listeners(redis, job) == 1
        break
    gc.collect()
    soon(lambda: listeners(redis, job) == 0)
    stream = job.events()
    next(stream)
    stream.close()
    assert listeners(redis, job) == 0  # close() returns when the connection is gone
    stream = client.thread_events(job.thread_id)
    stream.close()  # before it began
    assert list(stream) == []


def test_an_error_in_the_loops_body_ends_the_iteration(client: Client, redis: redis_py.Redis) -> None:
    job = client.enqueue("steps", "a")
    stream = job.events()

    def fail() -> None:
        for _ in stream:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    stream.close()
    assert listeners(redis, job) == 0


def test_a_reader_that_stands_still_holds_up_nobody(client: Client, redis: redis_py.Redis) -> None:
    job = client.enqueue("steps", "a")
    for n in range(2, 500):
        entry = {"v": 1, "id": f"0-{n}", "job_id": job.job_id, "thread_id": job.thread_id, "type": "x", "ns": []}
        redis.xadd(KEYS.events(job.job_id), {"e": json.dumps(entry | {"data": n, "at": ""})}, id=f"0-{n}")
    stream = job.events()
    next(stream)
    assert job.status().state == "queued"
    assert [event.data for _, event in zip(range(498), stream, strict=False)] == list(range(2, 500))
    stream.close()


def test_errors_of_an_iteration_are_the_same(client: Client) -> None:
    job = client.enqueue("steps", "a")
    with pytest.raises(InvalidJob, match="after="):
        next(job.events(after="x"))
    with pytest.raises(JobNotFound):
        next(Job(client, "nobody", "t", None).events())


# Ctrl-C


def test_ctrl_c_ends_a_waiting_call_and_leaves_nothing(client: Client, redis: redis_py.Redis) -> None:
    job = client.enqueue("steps", "a")
    watcher = interrupt_when(lambda: listeners(redis, job) == 1)
    with pytest.raises(KeyboardInterrupt):
        job.result()
    watcher.join()
    soon(lambda: listeners(redis, job) == 0)
    assert job.status().state == "queued"


def test_ctrl_c_ends_an_iteration_and_leaves_nothing(client: Client, redis: redis_py.Redis) -> None:
    job = client.enqueue("steps", "a")
    stream = job.events()
    assert next(stream).type == "queued"
    watcher = interrupt_when(lambda: listeners(redis, job) == 1)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    watcher.join()
    assert listeners(redis, job) == 0
    assert job.status().state == "queued"


# Closing


def test_a_closed_client_says_so(redis_url: str, database_url: str) -> None:
    client = Client(redis_url=redis_url, database_url=database_url)
    job = client.enqueue("steps", "a")
    client.close()
    client.close()
    assert sessions(database_url) == 0
    for ask in (job.status, lambda: next(job.events()), lambda: client.enqueue("steps", "a")):
        with pytest.raises(BackendUnavailable, match="the client is closed: make a new one"):
            ask()
    never_used = Client(redis_url=redis_url)
    never_used.close()
    with pytest.raises(BackendUnavailable, match="the client is closed"):
        never_used.enqueue("steps", "a")


def test_closing_ends_what_other_threads_wait_for(client: Client, redis: redis_py.Redis) -> None:
    job = client.enqueue("steps", "a")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(job.result), pool.submit(list, job.events())]
        soon(lambda: listeners(redis, job) == 2)
        client.close()
        for ended, what in zip(waiting, ("call", "iteration"), strict=True):
            with pytest.raises(BackendUnavailable, match=f"the client was closed during the {what}"):
                ended.result(timeout=20)
    assert listeners(redis, job) == 0


def test_a_forgotten_client_lets_go_of_its_connections(redis_url: str, database_url: str) -> None:
    before = threading.enumerate()
    client = Client(redis_url=redis_url, database_url=database_url)
    client.jobs()
    assert sessions(database_url) == 1
    del client
    gc.collect()
    soon(lambda: [thread for thread in threading.enumerate() if thread not in before] == [])
    assert sessions(database_url) == 0


def test_servers_that_are_wrong_are_named_as_by_the_async_client(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="set REDIS_URL and DATABASE_URL"):
        Client()
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not a URL that libpq reads"):
        Client(database_url="mysql://x")
    with (
        Client(database_url="postgresql://u@127.0.0.1:1/x") as client,
        pytest.raises(BackendUnavailable, match="Postgres: "),
    ):
        client.jobs()
    with Client.from_env({"REDIS_URL": "redis://127.0.0.1:1"}) as client:
        with pytest.raises(BackendUnavailable, match="Redis: "):
            client.enqueue("steps", "a")
        with pytest.raises(NeedsDatabase):
            client.jobs()


_SCRIPT = """
import os, signal, sys, threading
from threadline.sync import Client

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)  # whoever hangs here must not outlive the test
        try:
            work()
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr)
            os._exit(1)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0

"""
_FORKED = (
    _SCRIPT
    + """
def use(close):
    assert client.enqueue("steps", "child").status().state == "queued"
    assert next(job.events()).type == "queued"
    try:
        next(stream)
    except RuntimeError as error:
        assert "before a fork" in str(error), error
    else:
        raise AssertionError("an inherited iteration went on")
    if close:
        client.close()

preloaded = Client.from_env()
child(lambda: preloaded.enqueue("steps", "preloaded").status())
preloaded.close()

client = Client.from_env()
job = client.enqueue("steps", "parent")
stream = job.events()
next(stream)
for close in (True, False):
    child(lambda: use(close))
    assert job.status().state == "queued"
job.cancel()
assert [event.type for event in stream] == ["cancelled"]
print(len(client.jobs()), [thread.name for thread in threading.enumerate()][1:])
client.close()
"""
)
_FORGOTTEN = """
import threadline
from threadline.sync import Client

aclose = threadline.Client.aclose

async def tell(client):
    await aclose(client)
    print("closed")

threadline.Client.aclose = tell
client = Client.from_env()
job = client.enqueue("steps", "a")
stream = job.events()
print(next(stream).type)
"""


def run(script: str, redis_url: str, database_url: str) -> tuple[str, str]:
    """What a program says that warns of everything it forgets."""
    # A fork with threads about is what is tested here; Python 3.12 warns of it.
    flags = ["-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    env = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, *flags, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def test_after_a_fork_each_process_has_connections_of_its_own(redis_url: str, database_url: str) -> None:
    said, warned = run(_FORKED, redis_url, database_url)
    assert said == "4 ['threadline-client']"
    assert warned == ""


def test_a_script_that_ends_without_closing_leaves_nothing(redis_url: str, database_url: str) -> None:
    assert run(_FORGOTTEN, redis_url, database_url) == ("queued\nclosed", "")
    assert sessions(database_url) == 0
