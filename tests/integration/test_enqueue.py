"""L2 and L3: enqueue is one insert, once for a key, in the caller's transaction where one is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import scalar_row
from redis.asyncio import Redis

from support.ledger import Bench, bench_on, cloned, emptied, request
from threadline import BackendUnavailable, Client, InvalidJob, Job, ThreadBusy, ThreadOwnedByAnother, UnknownAgent
from threadline_worker.embedded import ServerUrls


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared), workers=(), size=20) as made:
        yield made


@pytest.fixture
async def client(shared: str, redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url=redis_url, database_url=shared) as made:
        yield made


@pytest.fixture
async def callers(shared: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection as a service has it: no autocommit, tuples for rows."""
    async with await AsyncConnection.connect(shared) as connection:
        yield connection


async def count(bench: Bench, table: str) -> int:
    [row] = await bench.sql(f"SELECT count(*) AS n FROM threadline.{table}")
    return int(row["n"])


async def test_L2_a_hundred_equal_enqueues_are_one_job(client: Client, bench: Bench) -> None:
    async def enqueue(_n: int) -> tuple[str, str]:
        job = await client.enqueue("steps", {"a": 1}, idempotency_key="k")
        return job.job_id, job.thread_id

    jobs = await asyncio.gather(*map(enqueue, range(100)))
    assert len(set(jobs)) == 1
    assert (await count(bench, "jobs"), await count(bench, "threads")) == (1, 1)


async def racing(bench: Bench, first: AsyncConnection[Any], second: Coroutine[Any, Any, Job]) -> asyncio.Task[Job]:
    """Let `second` run until it waits for what `first` has not committed yet (or is through), then commit that."""
    task = asyncio.create_task(second)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while not (task.done() or await bench.sql(waiting)):
            await asyncio.sleep(0.002)
    await first.commit()
    await asyncio.wait([task], timeout=10)
    return task


@pytest.mark.parametrize("thread", ["new", "known", "made up"])
@pytest.mark.parametrize("on_busy", ["enqueue", "reject", "interrupt", "rollback"])
async def test_L2_an_equal_enqueue_in_a_race_gets_the_first_job(
    client: Client, bench: Bench, callers: AsyncConnection[Any], on_busy: str, thread: str
) -> None:
    if thread == "known":
        await (await client.enqueue("steps", "b", thread_id="t")).cancel()
    same: dict[str, Any] = {"agent": "steps", "input": "a", "idempotency_key": "k", "on_busy": on_busy}
    if thread != "made up":
        same["thread_id"] = "t"
    first = await client.enqueue(**same, connection=callers)
    second = (await racing(bench, callers, client.enqueue(**same))).result()
    assert (second.job_id, second.thread_id) == (first.job_id, first.thread_id)
    assert (await bench.row(first.job_id))["state"] == "queued"
    assert await count(bench, "threads") == 1


async def test_L2_a_request_refused_in_a_race_replaces_nothing(
    client: Client, bench: Bench, callers: AsyncConnection[Any]
) -> None:
    waiting = await client.enqueue("steps", "waits", thread_id="t")
    await client.enqueue("steps", "first", thread_id="other", idempotency_key="k", connection=callers)
    second = client.enqueue("steps", "second", thread_id="t", idempotency_key="k", on_busy="interrupt")
    with pytest.raises(InvalidJob, match="idempotency key 'k' was used for another request"):
        (await racing(bench, callers, second)).result()
    assert (await bench.row(waiting.job_id))["state"] == "queued"


async def test_L2_the_first_job_comes_back_also_when_it_has_failed(client: Client, bench: Bench) -> None:
    await bench.worker("w1")
    first = await client.enqueue("steps", "a", idempotency_key="k")
    await bench.end(first.job_id, "failed")
    again = await client.enqueue("steps", "a", idempotency_key="k")
    assert (again.job_id, again.thread_id) == (first.job_id, first.thread_id)
    assert (await again.status()).state == "failed"


@pytest.mark.parametrize(
    "change",
    [
        {"input": "b"},
        {"agent": "other"},
        {"thread_id": "u"},
        {"on_busy": "reject"},
        {"timeout": 5},
        {"metadata": {"a": 1}},
    ],
)
async def test_L2_another_request_under_the_same_key_is_refused(
    client: Client, bench: Bench, change: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {"agent": "steps", "input": "a", "thread_id": "t", "idempotency_key": "k"}
    first = await client.enqueue(**usual)
    with pytest.raises(InvalidJob, match=rf"idempotency key 'k' was used for another request \(job {first.job_id}\)"):
        await client.enqueue(**{**usual, **change})
    assert await count(bench, "jobs") == 1
    assert await count(bench, "threads") == 1


async def test_L2_keys_are_per_user(client: Client) -> None:
    mine = await client.enqueue("steps", "a", user_id="me", idempotency_key="k")
    yours = await client.enqueue("steps", "a", user_id="you", idempotency_key="k")
    assert mine.job_id != yours.job_id


async def test_L2_the_key_is_looked_up_before_on_busy(client: Client, bench: Bench) -> None:
    first = await client.enqueue("steps", "a", thread_id="t", idempotency_key="k", on_busy="reject")
    later = await client.enqueue("steps", "b", thread_id="t")
    again = await client.enqueue("steps", "a", thread_id="t", idempotency_key="k", on_busy="reject")
    assert again.job_id == first.job_id
    with pytest.raises(InvalidJob, match="another request"):
        await client.enqueue("steps", "c", thread_id="t", idempotency_key="k", on_busy="interrupt")
    assert (await bench.row(later.job_id))["state"] == "queued"


async def test_racing_users_make_one_owner(client: Client, bench: Bench) -> None:
    async def enqueue(n: int) -> str | None:
        user = f"user-{n % 2}"
        try:
            await client.enqueue("steps", "a", thread_id="t", user_id=user)
        except ThreadOwnedByAnother:
            return None
        return user

    owners = {owner for owner in await asyncio.gather(*map(enqueue, range(50))) if owner}
    assert len(owners) == 1
    rows = await bench.sql("SELECT DISTINCT user_id FROM threadline.jobs")
    assert {row["user_id"] for row in rows} == owners
    assert await count(bench, "jobs") == 25


async def test_O3_of_fifty_that_reject_a_busy_thread_one_is_accepted(client: Client, bench: Bench) -> None:
    await client.enqueue("steps", "a", thread_id="other")

    async def enqueue(n: int) -> str | None:
        try:
            return (await client.enqueue("steps", f"{n}", thread_id="t", on_busy="reject")).job_id
        except ThreadBusy as error:
            return None if error.job_id else "nobody"

    accepted = [job for job in await asyncio.gather(*map(enqueue, range(50))) if job]
    rows = await bench.sql("SELECT job_id FROM threadline.jobs WHERE thread_id = 't'")
    assert accepted == [row["job_id"] for row in rows]
    assert len(accepted) == 1


async def test_O3_a_rejecting_enqueue_waits_for_one_that_is_not_committed(
    client: Client, bench: Bench, callers: AsyncConnection[Any]
) -> None:
    await (await client.enqueue("steps", "a", thread_id="t")).cancel()
    first = await client.enqueue("steps", "a", thread_id="t", on_busy="reject", connection=callers)
    with pytest.raises(ThreadBusy, match=f"thread t is busy: job {first.job_id} is queued"):
        (await racing(bench, callers, client.enqueue("steps", "b", thread_id="t", on_busy="reject"))).result()


async def test_a_refused_job_leaves_nothing(client: Client, bench: Bench) -> None:
    await bench.worker("w1", '{"steps": {"text_input": false}, "chat": {"text_input": true}}')
    with pytest.raises(UnknownAgent, match="no live worker runs the agent 'other'; known: chat, steps"):
        await client.enqueue("other", "a")
    with pytest.raises(InvalidJob, match="agent steps has no `messages`: give its input as a dict, not as text"):
        await client.enqueue("steps", "a")
    await client.enqueue("chat", "a", thread_id="t", user_id="me")
    with pytest.raises(ThreadOwnedByAnother, match="thread t belongs to another user"):
        await client.enqueue("chat", "a", thread_id="t", user_id="you")
    with pytest.raises(ThreadBusy, match=r"thread t is busy: job [0-9a-f]{32} is queued"):
        await client.enqueue("chat", "b", thread_id="t", user_id="me", on_busy="reject")
    assert (await count(bench, "jobs"), await count(bench, "threads")) == (1, 1)


async def test_an_agent_is_judged_only_while_a_worker_lives(client: Client, bench: Bench) -> None:
    await client.enqueue("other", "a")
    await bench.worker("w1")
    await bench.sql("UPDATE threadline.workers SET beat_at = now() - interval '16 seconds'")
    await client.enqueue("other", "a")
    await bench.sql("UPDATE threadline.workers SET beat_at = now()")
    with pytest.raises(UnknownAgent):
        await client.enqueue("other", "a")


async def test_a_carried_job_is_adopted_once(bench: Bench) -> None:
    asked = request()
    answers = [
        await bench.ledger.enqueue(asked, fingerprint=asked.fingerprint(), dispatching=True, check_agent=False)
        for _ in range(2)
    ]
    assert [answer.created for answer in answers] == [True, False]
    with pytest.raises(InvalidJob, match=f"job id {asked.job_id} is taken by another request"):
        await bench.enqueue(job_id=asked.job_id)


# L3


async def test_L3_a_job_of_a_rolled_back_transaction_has_never_existed(
    client: Client, bench: Bench, callers: AsyncConnection[Any]
) -> None:
    await client.enqueue("steps", "a", connection=callers)
    assert await count(bench, "jobs") == 0  # nobody else sees it before the commit
    await callers.rollback()
    assert (await count(bench, "jobs"), await count(bench, "threads")) == (0, 0)


async def test_L3_a_committed_job_is_notified_and_not_sent(
    client: Client, bench: Bench, callers: AsyncConnection[Any], shared: str, redis_url: str
) -> None:
    async with (
        await AsyncConnection.connect(shared, autocommit=True) as listener,
        Redis.from_url(redis_url) as redis,
    ):
        await listener.execute("LISTEN threadline")
        before = {connected["id"] for connected in await redis.client_list()}
        job = await client.enqueue("steps", "a", connection=callers)
        assert {connected["id"] for connected in await redis.client_list()} == before  # not even a connection
        await callers.execute("SELECT 1")
        await callers.commit()
        assert [notice.channel async for notice in listener.notifies(timeout=10, stop_after=1)] == ["threadline"]
        assert await redis.dbsize() == 0
        assert (await bench.row(job.job_id))["dispatched_at"] is None
        assert [due.job_id for due in await bench.ledger.dispatch_due()] == [job.job_id]


@pytest.mark.parametrize("autocommit", [False, True])
async def test_L3_a_refused_job_does_not_spoil_the_callers_transaction(
    client: Client, bench: Bench, shared: str, autocommit: bool
) -> None:
    await client.enqueue("steps", "a", thread_id="t", user_id="me")
    async with await AsyncConnection.connect(shared, autocommit=autocommit) as callers:
        await callers.execute("CREATE TEMPORARY TABLE own (n int)")
        async with callers.transaction():
            await callers.execute("INSERT INTO own VALUES (1)")
            with pytest.raises(ThreadOwnedByAnother):
                await client.enqueue("steps", "a", thread_id="t", user_id="you", connection=callers)
            with pytest.raises(InvalidJob):
                await client.enqueue("steps", "", connection=callers)
            job = await client.enqueue("steps", "b", thread_id="t", user_id="me", connection=callers)
            await callers.execute("INSERT INTO own VALUES (2)")
        await callers.commit()
        assert await (await callers.execute("SELECT n FROM own ORDER BY 1")).fetchall() == [(1,), (2,)]
    assert (await bench.row(job.job_id))["state"] == "queued"


async def test_L3_an_error_inside_is_undone_to_the_savepoint(
    client: Client, callers: AsyncConnection[Any], bench: Bench
) -> None:
    await callers.execute("SET LOCAL statement_timeout = '200ms'")
    async with bench.ledger.database.connection() as other, other.transaction():
        await other.execute("LOCK TABLE threadline.jobs")
        with pytest.raises(BackendUnavailable, match="Postgres: canceling statement due to statement timeout"):
            await client.enqueue("steps", "a", connection=callers)
    assert callers.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert await (await callers.execute("SELECT 1")).fetchone() == (1,)


async def test_L3_any_row_factory_will_do(client: Client, bench: Bench, shared: str) -> None:
    async with await AsyncConnection.connect(shared, row_factory=scalar_row) as callers:
        job = await client.enqueue("steps", "a", connection=callers)
    assert (await bench.row(job.job_id))["state"] == "queued"


async def test_a_blocking_connection_is_refused_in_words(client: Client, shared: str) -> None:
    with psycopg.connect(shared) as callers, pytest.raises(InvalidJob, match=r"is a Connection: .* AsyncConnection"):
        await client.enqueue("steps", "a", connection=callers)  # type: ignore[arg-type]  # on purpose


async def test_L3_an_autocommit_connection_commits_at_once(client: Client, bench: Bench, shared: str) -> None:
    async with await AsyncConnection.connect(shared, autocommit=True) as callers:
        job = await client.enqueue("steps", "a", connection=callers)
    assert (await bench.row(job.job_id))["state"] == "queued"
