"""A worker's courier on a real ledger with real receivers: tries, pauses, bounds, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from support.gates import until
from support.ledger import Bench, bench_on, cloned, emptied
from support.receiver import SECRET, Receiver, receiving
from threadline.contract.states import State
from threadline_worker.embedded import ServerUrls
from threadline_worker.telemetry.metrics import Metrics
from threadline_worker.webhooks.courier import Courier
from threadline_worker.webhooks.outbox import Outbox
from threadline_worker.webhooks.schedule import PAUSES
from threadline_worker.webhooks.sender import Sender
from threadline_worker.webhooks.settings import WebhookSettings

TRIES = len(PAUSES) + 1


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared), size=10) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be told at once is not found by chance."""
    monkeypatch.setattr("threadline_worker.webhooks.courier._POLL_SECONDS", 600.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@contextlib.asynccontextmanager
async def couriering(
    bench: Bench, secrets: tuple[str, ...] = (SECRET,), allow: str = "127.0.0.0/8"
) -> AsyncIterator[tuple[Courier, CollectorRegistry]]:
    """A courier as main.py makes and ends it."""
    registry = CollectorRegistry()
    settings = WebhookSettings.from_env({"THREADLINE_WEBHOOK_ALLOW": allow})
    sender = Sender(settings.allow, total_seconds=20.0)
    courier = Courier(Outbox(bench.ledger.database, bench.ledger.queries), sender, secrets, Metrics(registry))
    task = asyncio.create_task(courier.run())
    try:
        yield courier, registry
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sender.aclose()


async def ended(bench: Bench, url: str, **options: Any) -> str:
    claim = await bench.started(webhook_url=url, **options)
    await bench.ledger.finish(claim, State.SUCCEEDED, result={"report": "…"})
    return claim.job_id


async def webhook(bench: Bench, job_id: str) -> dict[str, Any]:
    status = (await bench.ledger.snapshot(job_id)).status
    assert status.webhook is not None
    return status.webhook


async def stands(bench: Bench, job_id: str, state: str, attempts: int = 1, limit: float = 20) -> dict[str, Any]:
    """Wait until the report stands so."""

    async def look() -> dict[str, Any] | None:
        found = await webhook(bench, job_id)
        return found if (found["state"], found["attempts"]) == (state, attempts) else None

    return await until(look, f"{state} after {attempts} tries", limit)


async def pause(bench: Bench, job_id: str) -> float:
    [row] = await bench.sql(
        "SELECT extract(epoch FROM next_at - clock_timestamp())::float8 AS left FROM threadline.webhooks"
        " WHERE job_id = %s",
        job_id,
    )
    return float(row["left"])


async def clock_goes_on(bench: Bench) -> None:
    await bench.sql("UPDATE threadline.webhooks SET next_at = clock_timestamp() WHERE state = 'pending'")


async def test_a_report_arrives_signed_once_and_is_counted(bench: Bench, receiver: Receiver) -> None:
    job = await ended(bench, receiver.url("/ok?x=1"))
    async with couriering(bench) as (_, registry):
        received = await receiver.arrived()
        payload = received.verified()
        told = await stands(bench, job, "delivered")
        assert registry.get_sample_value("threadline_webhook_deliveries_total", {"result": "delivered"}) == 1
    assert (payload["type"], payload["data"]["job_id"], payload["data"]["result"]) == (
        "job.succeeded", job, {"report": "…"}
    )  # fmt: skip
    assert received.headers["webhook-id"] == f"{job}:2"
    assert received.headers["content-type"] == "application/json"
    assert (told["status"], told["next_at"]) == (200, None)
    assert told["delivered_at"].endswith("Z")
    assert receiver.requests.empty()


async def test_a_receiver_that_fails_is_tried_on_the_schedule_and_then_given_up(
    bench: Bench, receiver: Receiver
) -> None:
    job = await ended(bench, receiver.url("/status/500"))
    bodies, ids, moments = set(), set(), []
    async with couriering(bench) as (courier, registry):
        for attempt in range(1, TRIES + 1):
            received = await receiver.arrived()
            received.verified()
            bodies.add(received.body)
            ids.add(received.headers["webhook-id"])
            moments.append(int(received.headers["webhook-timestamp"]))
            if attempt < TRIES:
                told = await stands(bench, job, "pending", attempt)
                assert (told["status"], told["answer"][:11]) == (500, "as you wish")
                left = await pause(bench, job)
                assert PAUSES[attempt - 1] - 5 < left <= PAUSES[attempt - 1] * 1.1
                await clock_goes_on(bench)
                courier.soon.set()
        await stands(bench, job, "failed", TRIES)

        async def rests() -> bool:
            return not await courier.busy()

        await until(rests, "nothing is under way or due")
        for result, count in (("retry", TRIES - 1), ("given_up", 1)):
            assert registry.get_sample_value("threadline_webhook_deliveries_total", {"result": result}) == count
    assert (len(bodies), len(ids)) == (1, 1)
    assert moments == sorted(moments)
    assert receiver.requests.empty()


async def test_what_receivers_ask_for_and_what_ends_it(bench: Bench, receiver: Receiver) -> None:
    later = await ended(bench, receiver.url("/later"))
    gone = await ended(bench, receiver.url("/status/410"))
    moved = await ended(bench, receiver.url("/redirect"))
    inside = await ended(bench, receiver.url("/ok", "[::1]"))
    async with couriering(bench) as (_, registry):
        assert (await stands(bench, later, "pending"))["status"] == 503
        assert 990 < await pause(bench, later) <= 1000
        assert (await stands(bench, gone, "failed"))["status"] == 410
        assert (await stands(bench, moved, "pending"))["status"] == 302
        told = await stands(bench, inside, "failed")
        assert (told["status"], told["answer"][:22]) == (None, "http:// goes to allowe")
        for result in ("gone", "refused"):
            assert registry.get_sample_value("threadline_webhook_deliveries_total", {"result": result}) == 1
    assert sorted(receiver.next().path for _ in range(3)) == ["/later", "/redirect", "/status/410"]
    assert receiver.requests.empty()


async def test_without_secrets_reports_are_held_until_a_worker_has_them(bench: Bench, receiver: Receiver) -> None:
    job = await ended(bench, receiver.url("/ok"))
    async with couriering(bench, secrets=()) as (courier, _):
        await stands(bench, job, "held", 0)
        assert not await courier.busy()
    assert receiver.requests.empty()
    async with couriering(bench):
        (await receiver.arrived()).verified()
        await stands(bench, job, "delivered")


async def test_a_slow_host_has_few_at_once_and_keeps_nobody_waiting(bench: Bench, receiver: Receiver) -> None:
    slow = [await ended(bench, receiver.url("/gate")) for _ in range(9)]
    with receiving() as other:
        quick = [await ended(bench, other.url("/ok")) for _ in range(3)]
        async with couriering(bench):
            for job in quick:
                await stands(bench, job, "delivered")
            for _ in range(4):
                await receiver.arrived()
            assert (await webhook(bench, slow[0]))["state"] == "pending"
            receiver.gate.set()
            for job in slow:
                await stands(bench, job, "delivered")
    assert receiver.most_at_once == 4


async def test_what_is_cut_off_at_the_end_of_a_worker_is_due_at_once_and_was_no_try(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadline_worker.webhooks.courier._LAST_WORDS_SECONDS", 0.2)
    job = await ended(bench, receiver.url("/gate"))
    async with couriering(bench) as (courier, _):
        first = await receiver.arrived()
        assert await courier.busy()
    assert await pause(bench, job) <= 0
    assert (await webhook(bench, job))["attempts"] == 0
    receiver.gate.set()
    async with couriering(bench):
        second = await receiver.arrived()
        await stands(bench, job, "delivered")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


async def test_what_is_in_flight_at_the_end_of_a_worker_may_arrive(bench: Bench, receiver: Receiver) -> None:
    job = await ended(bench, receiver.url("/gate"))
    async with couriering(bench):
        await receiver.arrived()
        asyncio.get_running_loop().call_later(0.1, receiver.gate.set)
    assert (await webhook(bench, job))["state"] == "delivered"


async def test_what_nobody_tells_of_is_found(bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadline_worker.webhooks.courier._POLL_SECONDS", 0.1)
    async with couriering(bench):
        job = await ended(bench, receiver.url("/ok"))
        await stands(bench, job, "delivered")


async def test_a_ledger_that_is_away_delays_and_does_not_lose(bench: Bench, receiver: Receiver) -> None:
    """The outcome is noted once the ledger answers again, as long as the claim is ours."""
    job = await ended(bench, receiver.url("/gate"))
    async with couriering(bench):
        await receiver.arrived()
        await bench.sql("ALTER TABLE threadline.webhooks RENAME TO away")
        with capture_logs([merge_contextvars]) as lines:
            receiver.gate.set()
            await until(lambda: any(line.get("job_id") == job for line in lines), "the outcome could not be noted")
        assert {line["event"] for line in lines} == {"webhook.outbox_failed"}
        await bench.sql("ALTER TABLE threadline.away RENAME TO webhooks")
        await stands(bench, job, "delivered")
    assert receiver.requests.empty()
