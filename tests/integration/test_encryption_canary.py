"""With encryption on, no table and no key of Redis holds a word of what users and agents say, in any form.

The same scene runs without keys first: there the word is found everywhere, so that the search itself is known to work.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from support.desk import LedgerView
from support.dumps import found_in, postgres_dump, redis_dump
from support.gates import until
from support.receiver import AUTHORITY, SECRET, receiving
from support.workers import WorkerHandle
from threadline import CannotDecrypt, Client, JobFailed, JobInterrupted
from threadline.contract.arq_message import JOB_KEY_PREFIX, Message
from threadline.settings import ClientSettings

Start = Callable[..., WorkerHandle]
CANARY = "kanarienvogel7Q"
KEY = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
NEWER = f"k2:{base64.b64encode(bytes(range(1, 33))).decode()}"
#: Where the scene leaves its word when nothing is sealed.
TABLES = {
    "jobs",
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
    "job_base_writes",
    "store",
    "effects",
    "webhooks",
    "dead_letters",
}


def client_of(env: dict[str, str], **more: str) -> Client:
    return Client(settings=ClientSettings.from_env({**env, **more}))


async def asked(client: Client, thread: str, answer: str, **more: Any) -> Any:
    """Answer, and go on to the next end; the prompts of the next question."""
    job = await client.resume(thread, f"{CANARY} {answer}", metadata={"because": CANARY}, **more)
    with pytest.raises((JobInterrupted, JobFailed)) as ended:
        await job.result(timeout=30)
    return ended.value


async def scene(env: dict[str, str], start: Start, url: str) -> None:
    """Everything that leaves something behind."""
    worker = start(**env)
    async with client_of(env) as client:
        job = await client.enqueue(
            "secretive",
            {"said": CANARY},
            thread_id="t",
            metadata={"ticket": CANARY},
            idempotency_key="one",
            stream_modes=["updates", "values", "custom", "tasks", "checkpoints", "debug"],
            webhook_url=url,
            configurable={"tone": CANARY},
        )
        with pytest.raises(JobInterrupted) as waiting:
            await job.result(timeout=30)
        assert waiting.value.interrupts[0]["value"] == {"question": f"publish kept {CANARY}?"}
        assert (await client.inbox())[0].metadata == {"ticket": CANARY}
        assert {event.type: event.data async for event in job.events()}["custom"] == {"progress": CANARY}
        second = await asked(client, "t", "yes", idempotency_key="two")
        assert second.interrupts[0]["value"] == f"really, {CANARY} yes?"
        failed = await asked(client, "t", "fail")
        assert failed.message.startswith(f"ValueError: refused: {CANARY} fail")
        await look_back(client)
        chat = await client.enqueue("chat", f"hello {CANARY}", thread_id="chat", stream_modes=["messages", "updates"])
        assert (await chat.result(timeout=30))["messages"][1]["data"]["content"] == f"1: hello {CANARY}"
        again = await client.enqueue("chat", "and again", thread_id="chat", checkpoint_id=None)
        assert CANARY in json.dumps(await again.result(timeout=30))
        report = await client.enqueue(
            "research", f"What is a {CANARY}?", thread_id="research", stream_modes=["updates"]
        )
        assert CANARY in json.dumps(await report.result(timeout=60))
        assert (await client.jobs(thread_id="t"))[-1].metadata == {"ticket": CANARY}

        async def answered() -> bool:
            webhook = (await (await client.job(job.job_id)).status()).webhook
            return webhook is not None and webhook["state"] == "delivered" and CANARY in webhook["answer"]

        await until(answered, "the report's answer is noted")
    await refused_message(env)
    assert worker.terminate() == 0
    if env["THREADLINE_ENCRYPTION_KEYS"]:
        assert CANARY not in "".join(worker.lines)
    async with Client(settings=ClientSettings.from_env({**env, "DATABASE_URL": ""})) as alone:
        await alone.enqueue("chat", f"carried {CANARY}", thread_id="carried", metadata={"ticket": CANARY})


async def rotated(env: dict[str, str], start: Start) -> None:
    """A newer key seals, and what the older one sealed goes on: a message, a thread, an idempotency key."""
    async with client_of(env) as client:
        plain = Client(settings=ClientSettings.from_env({**env, "THREADLINE_ENCRYPTION_KEYS": ""}))
        async with plain:
            refused = await plain.enqueue("chat", f"in the clear {CANARY}", thread_id="refused")
        start(**env)
        carried = await until(lambda: adopted(client), "the message is adopted")
        assert "1: carried" in json.dumps(await (await client.job(carried)).result(timeout=30))
        again = await client.enqueue("chat", "and now?", thread_id="chat", idempotency_key="three")
        assert CANARY in json.dumps(await again.result(timeout=30))
        stored = LedgerView(env["DATABASE_URL"]).job(again.job_id)
        assert stored["input"]["sealed"].startswith("k2:")
        first = (await client.jobs(thread_id="t"))[-1].job_id
        options: dict[str, Any] = {"thread_id": "t", "metadata": {"ticket": CANARY}, "idempotency_key": "one"}
        options["configurable"] = {"tone": CANARY}
        options["stream_modes"] = ["updates", "values", "custom", "tasks", "checkpoints", "debug"]
        url = LedgerView(env["DATABASE_URL"]).job(first)["options"]["webhook_url"]
        repeated = await client.enqueue("secretive", {"said": CANARY}, webhook_url=url, **options)
        assert repeated.job_id == first
        with pytest.raises(JobFailed, match="is plaintext, which is refused"):
            await (await client.job(refused.job_id)).result(timeout=30)


async def adopted(client: Client) -> str | None:
    jobs = await client.jobs(thread_id="carried")
    return jobs[0].job_id if jobs else None


async def without_the_key(env: dict[str, str]) -> None:
    """Who has no key is told which one is missing, and nothing else."""
    async with client_of(env, THREADLINE_ENCRYPTION_KEYS=NEWER) as client:
        with pytest.raises(CannotDecrypt, match="key 'k1'"):
            await client.jobs(thread_id="chat")
        job_id = LedgerView(env["DATABASE_URL"]).rows("SELECT job_id FROM jobs WHERE idempotency_key = 'one'")[0]
        with pytest.raises(CannotDecrypt, match=f"{job_id['job_id']} is sealed with the key 'k1'"):
            await client.job(job_id["job_id"])
    async with Client(settings=ClientSettings.from_env({**env, "DATABASE_URL": ""})) as alone:
        with pytest.raises(CannotDecrypt, match=r"events\.data .* key 'k1'"):
            await (await alone.job(job_id["job_id"])).result(timeout=10)


async def look_back(client: Client) -> None:
    """Travel in time: what is read, forked and changed is told by internal jobs."""
    history = await client.history("t")
    assert history[0]["metadata"]["step"] == history[0]["step"]
    fork = await client.fork("t", new_thread_id="fork")
    state = await client.state(fork)
    assert state["values"]["said"] == f"kept {CANARY}"
    await client.update_state(fork, {"said": f"changed {CANARY}"}, as_node="keep")
    assert (await client.state(fork))["values"]["said"] == f"changed {CANARY}"


async def refused_message(env: dict[str, str]) -> None:
    """A message that can never become a job is kept with its body."""
    body = {
        "v": 1,
        "job_id": "bad",
        "agent": "chat",
        "thread_id": "bad",
        "user_id": "u",
        "input": CANARY,
        "timeout": CANARY,
    }
    message = Message("bad", ["bad", body], int(time.time() * 1000))
    view = LedgerView(env["DATABASE_URL"])
    with redis.Redis.from_url(env["REDIS_URL"]) as connection:
        connection.set(JOB_KEY_PREFIX + "bad", message.body)
        connection.zadd("threadline:queue", {"bad": 0})
        await until(lambda: bool(view.rows("SELECT message_id FROM dead_letters")), "the message was set aside")
        await until(lambda: not connection.exists(JOB_KEY_PREFIX + "bad"), "the message is gone")


@pytest.fixture
def scene_env(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "birds.md").write_text(f"# Birds\n\nA {CANARY} is a small yellow bird that sings in mines.\n")
    return {
        **env,
        "THREADLINE_AGENTS": f"{env['THREADLINE_AGENTS']},secretive=support.secret_graphs:secretive",
        "THREADLINE_CORPUS": str(corpus),
        "THREADLINE_WEBHOOK_SECRETS": SECRET,
        "THREADLINE_WEBHOOK_ALLOW": "127.0.0.1",
        "SSL_CERT_FILE": AUTHORITY,
    }


@pytest.mark.parametrize("keys", ["", KEY], ids=["off", "on"])
async def test_no_word_of_it_is_stored_in_the_clear(scene_env: dict[str, str], workers: Start, keys: str) -> None:
    env = {**scene_env, "THREADLINE_ENCRYPTION_KEYS": keys}
    with receiving(tls=True) as receiver:
        receiver.words = f"got {CANARY}"
        await scene(env, workers, receiver.url("/ok"))
        request = await receiver.arrived()
        assert request.verified()["data"]["metadata"] == {"ticket": CANARY}
    stored = found_in(postgres_dump(env["DATABASE_URL"]), CANARY)
    kept = found_in(redis_dump(env["REDIS_URL"]), CANARY)
    if keys:
        assert stored | kept == set()
        await rotated({**scene_env, "THREADLINE_ENCRYPTION_KEYS": f"{NEWER},{KEY}"}, workers)
        await without_the_key(scene_env)
    else:
        assert {found.place for found in stored} >= TABLES
        assert any(":events:" in found.place for found in kept)
        assert any(found.place.startswith(JOB_KEY_PREFIX) for found in kept)
