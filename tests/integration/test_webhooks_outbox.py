"""Whatever ends a job writes its report in the same transaction; a report is one worker's at a time, by its claim."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest

from support.ledger import Bench, bench_on, cloned, emptied
from support.markdown import block
from threadline import InvalidJob
from threadline.contract.job import new_id
from threadline.contract.states import State
from threadline_worker.embedded import ServerUrls
from threadline_worker.webhooks.outbox import LEASE_SECONDS, Outbox

URL = "https://hooks.example:8443/threadline?token=secret"


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared), size=10) as made:
        yield made


def outbox(bench: Bench, per_host: int = 100) -> Outbox:
    return Outbox(bench.ledger.database, bench.ledger.queries, per_host=per_host)


async def reports(bench: Bench, job_id: str) -> list[dict[str, Any]]:
    rows = await bench.sql("SELECT payload, epoch FROM threadline.webhooks WHERE job_id = %s ORDER BY epoch", job_id)
    assert all(row["payload"]["data"]["epoch"] == row["epoch"] for row in rows)
    return [row["payload"] for row in rows]


async def ended(bench: Bench, count: int = 1, url: str = URL) -> list[str]:
    """Jobs that have succeeded."""
    jobs = []
    for _ in range(count):
        claim = await bench.started(webhook_url=url)
        await bench.ledger.finish(claim, State.SUCCEEDED, result={"n": 1})
        jobs.append(claim.job_id)
    return jobs


async def make_due(bench: Bench) -> None:
    """The clock goes on."""
    await bench.sql("UPDATE threadline.webhooks SET next_at = now() - interval '1 s' WHERE next_at > now()")


async def test_every_way_to_end_is_reported_once_for_each_end(bench: Bench) -> None:
    options = {"webhook_url": URL}
    for state in ("succeeded", "failed", "interrupted", "cancelled"):
        await bench.end((await bench.enqueue(**options)).job_id, state)
    queued = await bench.enqueue(**options)
    await bench.ledger.cancel(queued.job_id)
    asked = await bench.started(**options)
    await bench.ledger.cancel(asked.job_id)
    await bench.ledger.release(asked, "drain")
    replaced = await bench.enqueue(**options, thread_id="t")
    await bench.enqueue(thread_id="t", on_busy="interrupt")
    expired = await bench.enqueue(**options, expires=0.001)
    await bench.set(expired.job_id, "expires_at = now() - interval '1 s'")
    await bench.ledger.expire()
    late = await bench.started(**options, timeout=1.0)
    await bench.set(late.job_id, "claimed_at = now() - interval '1 hour'")
    await bench.ledger.enforce_deadlines(3600, grace=1)
    failed = await bench.started(**options)
    await bench.ledger.release(failed, "transient", failure=True, limit=1)
    poisoned = await bench.started("w2", **options)
    await bench.set(poisoned.job_id, "stalls = 2")
    await bench.rescue("w2")

    rows = await bench.sql(
        "SELECT j.job_id, j.state, j.code, w.payload FROM threadline.jobs AS j LEFT JOIN threadline.webhooks AS w"
        " USING (job_id, epoch) WHERE j.options::text LIKE '%%webhook_url%%'"
    )
    assert len(rows) == 11
    for row in rows:
        data = row["payload"]["data"]
        assert (data["job_id"], data["state"], data["code"]) == (row["job_id"], row["state"], row["code"])
        assert row["payload"]["type"] == f"job.{row['state']}"
    codes = {row["job_id"]: row["code"] for row in rows}
    several = (queued, asked, replaced, expired, late, failed, poisoned)
    assert [codes[job.job_id] for job in several] == [
        "requested", "requested", "replaced", "expired", "timeout", "transient", "poisoned"
    ]  # fmt: skip
    [count] = await bench.sql("SELECT count(*) AS n FROM threadline.webhooks")
    assert count["n"] == 11


async def test_a_retried_job_reports_again_and_a_release_does_not(bench: Bench) -> None:
    claim = await bench.started(webhook_url=URL)
    await bench.ledger.release(claim, "drain")
    claim = await bench.claim(claim.job_id)
    await bench.ledger.finish(claim, State.FAILED, code="error", message="no")
    await bench.ledger.retry(claim.job_id)
    again = await bench.claim(claim.job_id)
    await bench.ledger.finish(again, State.SUCCEEDED, result=1)
    first, second = await reports(bench, claim.job_id)
    assert (first["type"], first["data"]["message"]) == ("job.failed", "no")
    assert (second["type"], second["data"]["code"], second["data"]["result"]) == ("job.succeeded", None, 1)


async def test_an_end_that_does_not_commit_is_not_reported_and_others_are_not_either(bench: Bench) -> None:
    claim = await bench.started(webhook_url=URL)
    async with bench.ledger.database.connection() as connection, connection.transaction(force_rollback=True):
        await connection.execute(
            "UPDATE threadline.jobs SET state = 'failed', epoch = epoch + 1 WHERE job_id = %s", (claim.job_id,)
        )
        cursor = await connection.execute("SELECT FROM threadline.webhooks")
        assert cursor.rowcount == 1
    await bench.end((await bench.enqueue()).job_id, "succeeded")
    assert await bench.sql("SELECT FROM threadline.webhooks") == []


async def test_no_option_however_odd_keeps_a_job_from_ending(bench: Bench) -> None:
    """JSON functions of Postgres raise for \\u0000: the trigger must not parse the options."""
    odd = ["\0", '","webhook_url":"https://other/', "\\"]
    for url in (None, URL):
        job = await bench.enqueue(interrupt_before=odd, metadata={"m": "\0"}, webhook_url=url)
        claim = await bench.claim(job.job_id)
        assert await bench.ledger.finish(claim, State.SUCCEEDED, result={"nul": "\0", "ü": [1.5]})
        rows = await bench.sql("SELECT url, payload::text FROM threadline.webhooks WHERE job_id = %s", job.job_id)
        assert [row["url"] for row in rows] == ([URL] if url else [])
        for row in rows:
            data = json.loads(row["payload"])["data"]
            assert (data["metadata"], data["result"]) == ({"m": "\0"}, {"nul": "\0", "ü": [1.5]})


async def test_the_payload_has_these_fields_and_large_ones_are_left_out(bench: Bench) -> None:
    claim = await bench.started(webhook_url=URL, metadata={"ticket": 7})
    await bench.ledger.finish(claim, State.SUCCEEDED, result="x" * 262_142)
    [report] = await reports(bench, claim.job_id)
    row = await bench.row(claim.job_id)
    assert datetime.fromisoformat(report["timestamp"]) == row["transition_at"].replace(
        microsecond=row["transition_at"].microsecond // 1000 * 1000
    )
    assert report == {
        "type": "job.succeeded",
        "timestamp": report["timestamp"],
        "data": {
            "job_id": claim.job_id,
            "thread_id": claim.thread_id,
            "user_id": "default",
            "agent": "steps",
            "state": "succeeded",
            "epoch": 2,
            "code": None,
            "message": None,
            "metadata": {"ticket": 7},
            "result": "x" * 262_142,
            "result_truncated": False,
            "interrupts": None,
            "interrupts_truncated": False,
        },
    }
    told = json.loads(block("docs/webhooks.md", "payload"))
    assert (list(told), list(told["data"])) == (list(report), list(report["data"]))
    large = await bench.started(webhook_url=URL)
    await bench.ledger.finish(large, State.SUCCEEDED, result="x" * 262_143)
    [report] = await reports(bench, large.job_id)
    assert (report["data"]["result"], report["data"]["result_truncated"]) == (None, True)
    for prompts, cut in (([{"id": "i", "value": "how many?"}], False), ([{"id": "i", "value": "x" * 262_144}], True)):
        asking = await bench.started(webhook_url=URL)
        await bench.ledger.finish(asking, State.INTERRUPTED, interrupts=prompts)
        [report] = await reports(bench, asking.job_id)
        assert report["data"]["interrupts"] == (None if cut else prompts)
        assert report["data"]["interrupts_truncated"] is cut


async def test_many_workers_at_once_claim_each_report_once(bench: Bench) -> None:
    jobs = await ended(bench, 30)
    claimed = await asyncio.gather(*(outbox(bench).claim(5, []) for _ in range(10)))
    found = [delivery.job_id for part in claimed for delivery in part]
    assert sorted(found) == sorted(jobs)
    assert await outbox(bench).claim(5, []) == []


async def test_a_full_host_neither_gets_more_nor_keeps_others_waiting(bench: Bench) -> None:
    await ended(bench, 8, "https://busy.example/")
    [other] = await ended(bench, 1, "https://other.example/")
    box = outbox(bench, per_host=3)
    first = await box.claim(16, ["busy.example"])
    assert sorted(delivery.host for delivery in first) == ["busy.example", "busy.example", "other.example"]
    assert await box.claim(16, ["busy.example"] * 3) == []
    assert other in {delivery.job_id for delivery in first}


async def test_a_long_backlog_of_a_full_host_hides_nobody(bench: Bench) -> None:
    [busy] = await ended(bench, 1, "https://busy.example/")
    await bench.sql(
        "INSERT INTO threadline.webhooks (job_id, epoch, url, host, payload, next_at)"
        " SELECT job_id, n, url, host, payload, now() - interval '1 h'"
        " FROM threadline.webhooks, generate_series(1000, 1600) AS n WHERE job_id = %s",
        busy,
    )
    [other] = await ended(bench, 1, "https://other.example/")
    box = outbox(bench, per_host=3)
    assert [delivery.job_id for delivery in await box.claim(16, ["busy.example"] * 3)] == [other]


async def test_only_the_newest_claims_outcome_counts(bench: Bench) -> None:
    """A worker that was stopped for longer than its lease comes back with an outcome that nobody wants any more."""
    [job] = await ended(bench)
    box = outbox(bench)
    [zombie] = await box.claim(1, [])
    assert await box.claim(1, []) == []
    await make_due(bench)
    [rescuer] = await box.claim(1, [])
    assert rescuer == zombie._replace(claims=2)
    assert not await box.record(zombie, "failed", answer="late")
    await box.give_back(zombie)
    assert await box.claim(1, []) == []
    assert await box.record(rescuer, "delivered", status=200)
    assert not await box.record(zombie, "pending", delay=5)
    assert not await box.record(rescuer, "failed")
    status = (await bench.ledger.snapshot(job)).status
    assert status.webhook is not None
    assert (status.webhook["state"], status.webhook["attempts"], status.webhook["status"]) == ("delivered", 1, 200)


async def test_a_claim_is_a_lease_and_giving_back_ends_it(bench: Bench) -> None:
    await ended(bench)
    box = outbox(bench)
    [delivery] = await box.claim(1, [])
    [row] = await bench.sql("SELECT extract(epoch FROM next_at - now())::float8 AS left FROM threadline.webhooks")
    assert LEASE_SECONDS - 5 < row["left"] <= LEASE_SECONDS
    assert not await box.due()
    await box.give_back(delivery)
    assert await box.due()
    assert [again.attempts for again in await box.claim(1, [])] == [0]


async def test_the_status_tells_where_the_latest_report_stands(bench: Bench) -> None:
    assert (await bench.ledger.snapshot((await bench.enqueue()).job_id)).status.webhook is None
    job = await bench.enqueue(webhook_url=URL)

    async def webhook() -> dict[str, Any]:
        snapshot = await bench.ledger.snapshot(job.job_id)
        [listed] = await bench.ledger.jobs(thread_id=job.thread_id)
        assert listed.webhook == snapshot.status.webhook
        assert snapshot.status.webhook is not None
        assert "secret" not in str(snapshot.status.webhook)
        return snapshot.status.webhook

    assert (await webhook())["state"] == "waiting"
    with pytest.raises(InvalidJob, match="has nothing to report: it has no webhook_url, or it has not ended"):
        await bench.ledger.redeliver(job.job_id)
    claim = await bench.claim(job.job_id)
    await bench.ledger.finish(claim, State.FAILED, code="error")
    assert (await bench.ledger.gauges())["webhook_backlog"] == 1
    box = outbox(bench)
    [delivery] = await box.claim(1, [])
    await box.record(delivery, "pending", delay=300, status=503, answer="busy")
    told = await webhook()
    assert (told["state"], told["epoch"], told["attempts"], told["status"], told["answer"]) == (
        "pending", 2, 1, 503, "busy"
    )  # fmt: skip
    assert told["next_at"].endswith("Z")
    await make_due(bench)
    assert await box.hold() == 1
    assert (await webhook())["state"] == "held"
    [delivery] = await box.claim(1, [])
    assert (await webhook())["state"] == "pending"
    await box.record(delivery, "failed", status=410)
    assert (await webhook())["next_at"] is None
    assert (await bench.ledger.gauges())["webhook_backlog"] == 0
    again = await bench.ledger.redeliver(job.job_id)
    assert again.webhook is not None
    assert (again.webhook["state"], again.webhook["attempts"], again.webhook["status"]) == ("pending", 0, None)
    await bench.ledger.retry(job.job_id)
    await bench.ledger.cancel(job.job_id)
    assert (await webhook())["epoch"] == 4


async def test_a_foreign_user_sends_nobodys_report_again(bench: Bench) -> None:
    [job] = await ended(bench)
    with pytest.raises(Exception, match="belongs to another user"):
        await bench.ledger.redeliver(job, user_id="mallory")
    with pytest.raises(Exception, match="no job"):
        await bench.ledger.redeliver(new_id())
