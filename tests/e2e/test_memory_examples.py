"""The examples, as they stand in docs/examples, through one real worker."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from support.chaos_processes import package_roots
from support.desk import LedgerView
from support.ledger import cloned
from support.research import write_corpus
from support.workers import WorkerHandle, Workers
from threadline import Client, JobInterrupted
from threadline.cli.app import cli

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def env(servers: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("examples")
    with cloned(servers, template) as url, redis.Redis.from_url(servers.redis_url) as connection:
        connection.flushdb()
        yield {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "REDIS_URL": servers.redis_url,
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join([*package_roots(), str(Path(__file__).parent.parent)]),
            "THREADLINE_AGENTS": str(EXAMPLES / "memory.json"),
            "THREADLINE_MODEL": "offline",
            "THREADLINE_CORPUS": str(write_corpus(folder / "corpus")),
            "THREADLINE_CACHE_DIR": str(folder / "cache"),
            "THREADLINE_MEMORY_ROUTES": "/memories/=user:rw,/knowledge/=shared:r",
            "THREADLINE_STORE_EMBEDDINGS": "offline",
            "THREADLINE_USER_HASH_KEYS": "a2V5IG9mIHRoZSBleGFtcGxlcyE=",
            "THREADLINE_STORE_SWEEP_SECONDS": "0.2",
            "THREADLINE_METRICS_PORT": "0",
            "THREADLINE_LOG_FORMAT": "json",
        }


@pytest.fixture(scope="module")
def worker(env: dict[str, str]) -> Iterator[WorkerHandle]:
    migrated = CliRunner().invoke(cli, ["migrate"], env=env)
    assert migrated.exit_code == 0, migrated.output
    assert "without meaning" not in migrated.output
    with Workers(env) as workers:
        yield workers.start()


@pytest.fixture
def example(worker: WorkerHandle, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`example(name)` is the module, with the environment of a producer."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("scripted", None)


async def test_the_support_bot_remembers_an_order_across_threads_for_its_customer(example: Any) -> None:
    said = await example("support_bot").main()
    assert said == ["I have noted your order A-4711.", "Your order A-4711 is on its way.", "Which order do you mean?"]


async def test_a_name_is_remembered_for_its_user_alone(example: Any) -> None:
    assert await example("remember_me").main() == ["Hello Bob.", "You are Bob.", "I do not know you."]


async def test_research_recalls_an_earlier_thread_of_the_same_user(example: Any) -> None:
    module = example("research_memory")
    first, second, of_another = await module.main()
    assert f"- {module.QUESTIONS[0]}" in second
    assert "Asked before" not in first + of_another


async def test_a_chat_is_shown_word_by_word_and_goes_on(example: Any) -> None:
    shown: list[str] = []
    await example("chat").main(shown.append)
    first, second, rest = "".join(shown).split("\n")
    assert first == "A lease is a promise that ends by itself."
    assert second == f"You asked before: What is a lease? I said: {first}"
    assert rest == ""
    assert shown.index("\n") > 3  # in pieces, while it was said


async def test_research_asks_a_person_for_its_plan_and_its_report(example: Any, env: dict[str, str]) -> None:
    """docs/people.md: per job, and answered on the command line."""
    question = example("research_memory").QUESTIONS[0]

    async def asked(job: Any) -> dict[str, Any]:
        with pytest.raises(JobInterrupted) as caught:
            await job.result(timeout=60)
        [request] = caught.value.interrupts[0]["value"]["action_requests"]
        return dict(request)

    async def answer(*arguments: str) -> Any:
        command = ["resume", "reviewed", *arguments, "--user", "eve"]
        done = await asyncio.to_thread(CliRunner().invoke, cli, command, env=env)
        assert done.exit_code == 0, done.output
        return await client.job(done.stdout.strip())

    async with Client.from_env() as client:
        both = {"approve_plan": True, "approve_publish": True}
        job = await client.enqueue("research", question, thread_id="reviewed", user_id="eve", configurable=both)
        assert (await asked(job))["name"] == "write_todos"
        again = await asked(await answer("--reject", "Look at Spindle, too."))
        assert "Research: Look at Spindle, too." in [todo["content"] for todo in again["args"]["todos"]]
        request = await asked(await answer("--approve"))
        assert request["args"]["file_path"] == "/report.md"
        result = await (await answer("--approve")).result(timeout=60)
    assert result["report"].startswith(f"# {question}")


async def test_an_agent_reads_what_was_imported_and_cannot_change_it(
    example: Any, tmp_path: Path, worker: WorkerHandle, env: dict[str, str]
) -> None:
    (tmp_path / "style.md").write_text("We write colour with a u.\n")
    # The command runs an event loop of its own.
    seeded = await asyncio.to_thread(
        CliRunner().invoke, cli, ["memory", "import", str(tmp_path), "--route", "/knowledge/"], env=env
    )
    assert (seeded.exit_code, seeded.output) == (0, "new\t/style.md\n")
    said = await example("project_context").main()
    assert "We write colour with a u." in said
    assert "read-only" in said
    assert "store.unindexed" not in worker.seen()


async def test_what_0_1_0_remembered_is_found_after_a_key_was_set(example: Any, env: dict[str, str]) -> None:
    name = hashlib.sha256(b"old@example.org").hexdigest()[:32]
    view = LedgerView(env["DATABASE_URL"])
    value = '{"content": "Ordered: O-1", "encoding": "utf-8"}'
    view.rows("INSERT INTO store (prefix, key, value) VALUES (%s, '/orders.md', %s)", f"memories.{name}", value)
    example("support_bot")
    async with Client.from_env() as client:
        job = await client.enqueue("support", "Where is it?", user_id="old@example.org")
        result = await job.result(timeout=60)
    assert result["messages"][-1]["data"]["content"] == "Your order O-1 is on its way."
    assert view.rows("SELECT 1 FROM store WHERE prefix = %s", f"memories.{name}") == []


def test_a_worker_deletes_what_has_expired(worker: WorkerHandle, env: dict[str, str]) -> None:
    view = LedgerView(env["DATABASE_URL"])
    view.rows("INSERT INTO store (prefix, key, value, expires_at) VALUES ('m', 'k', '{}', now() - interval '1 minute')")
    while worker.logged("store.swept")["deleted"] != 1:
        pass
    assert view.rows("SELECT 1 FROM store WHERE prefix = 'm'") == []
