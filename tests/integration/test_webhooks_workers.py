"""Reports on real workers over real TLS: every worker may die in the middle, and the receiver hears of each end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.desk import LedgerView
from support.gates import until
from support.receiver import AUTHORITY, SECRET, Receiver, receiving
from support.workers import WorkerHandle
from threadline import Client

Start = Callable[..., WorkerHandle]
SENDING = {
    "THREADLINE_WEBHOOK_SECRETS": SECRET,
    "THREADLINE_WEBHOOK_ALLOW": "127.0.0.1",
    "SSL_CERT_FILE": AUTHORITY,
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(tls=True) as made:
        yield made


async def stands(client: Client, job_id: str, state: str) -> dict[str, Any]:
    """Wait until the report of a job stands so."""

    async def look() -> dict[str, Any] | None:
        webhook = (await (await client.job(job_id)).status()).webhook
        return webhook if webhook is not None and webhook["state"] == state else None

    return await until(look, f"the report of {job_id} is {state}", 30)


async def test_a_report_survives_the_crash_of_every_worker(
    client: Client, workers: Start, receiver: Receiver, database_url: str
) -> None:
    silent = workers()
    job = await client.enqueue("steps", {"done": [], "until": 1}, webhook_url=receiver.url("/gate?token=hidden"))
    await job.result(timeout=30)
    assert silent.logged("webhook.held")["deliveries"] == 1
    assert (await stands(client, job.job_id, "held"))["attempts"] == 0
    silent.kill()

    first = workers(**SENDING)
    cut = await receiver.arrived()
    first.kill()
    assert (await stands(client, job.job_id, "pending"))["attempts"] == 0

    LedgerView(database_url).rows("UPDATE webhooks SET next_at = now()")  # the lease ends
    receiver.gate.set()
    second = workers(**SENDING)
    received = await receiver.arrived()
    told = await stands(client, job.job_id, "delivered")
    assert (told["attempts"], told["status"]) == (1, 204)
    assert received.verified()["data"]["result"] == {"done": [0], "until": 1}
    assert received.headers["webhook-id"] == cut.headers["webhook-id"] == f"{job.job_id}:2"
    assert received.body == cut.body
    line = second.logged("webhook.delivered")
    assert (line["job_id"], line["host"], line["attempt"]) == (job.job_id, f"127.0.0.1:{receiver.port}", 1)
    assert (line["thread_id"], line["agent"], line["epoch"], line["trace_id"]) == (
        job.thread_id,
        "steps",
        2,
        job.job_id,
    )
    assert 'threadline_webhook_deliveries_total{result="delivered"} 1.0' in second.metrics()
    for worker in (silent, first, second):
        assert not [text for text in worker.lines if "hidden" in text or SECRET in text]


async def test_each_end_is_told_whoever_enqueued_and_whoever_ended_it(
    client: Client, workers: Start, receiver: Receiver, redis_url: str, env: dict[str, str]
) -> None:
    worker = workers(**SENDING)

    async def heard(path: str) -> dict[str, Any]:
        received = await receiver.arrived()
        assert received.path == path
        payload: dict[str, Any] = received.verified()
        return payload

    asked = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="t", webhook_url=receiver.url("/ask"))
    told = await heard("/ask")
    assert (told["type"], told["data"]["interrupts"][0]["value"]) == ("job.interrupted", "how many?")
    behind = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t", webhook_url=receiver.url("/gone"))
    await behind.cancel()
    told = await heard("/gone")
    assert (told["type"], told["data"]["code"]) == ("job.cancelled", "requested")
    await asked.cancel()
    told = await heard("/ask")
    assert (told["type"], told["data"]["epoch"]) == ("job.cancelled", 3)

    async with Client(redis_url=redis_url) as redis_only:
        carried = await redis_only.enqueue(
            "steps", {"done": [], "until": 1}, metadata={"n": 1}, webhook_url=receiver.url("/carried")
        )
    told = await heard("/carried")
    assert (told["data"]["job_id"], told["data"]["metadata"]) == (carried.job_id, {"n": 1})

    def threadline(*arguments: str) -> str:
        command = [sys.executable, "-m", "threadline.cli", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    value = '{"done": [], "until": 1}'
    job_id = threadline("enqueue", "steps", value, "--input-json", "--webhook", receiver.url("/cli")).strip()
    assert (await heard("/cli"))["data"]["job_id"] == job_id
    await stands(client, job_id, "delivered")
    assert "webhook   delivered after 1 try, 200" in threadline("status", job_id)
    assert json.loads(threadline("status", job_id, "--json"))["webhook"]["state"] == "delivered"
    assert threadline("retry", job_id, "--webhook").strip() == job_id
    assert (await heard("/cli"))["data"]["job_id"] == job_id
    assert worker.terminate() == 0
