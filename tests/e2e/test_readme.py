"""What a reader copies out of the documents works as it stands, against a real worker."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import types
import uuid
from collections.abc import Callable
from pathlib import Path

from support.markdown import ROOT, block, blocks
from support.workers import WorkerHandle
from threadline import Client

Start = Callable[..., WorkerHandle]
_PAGE = "# PostgreSQL 18\n\nPostgreSQL 18 changed asynchronous I/O: reads of sequential scans are issued in advance.\n"


def _run(folder: Path, name: str, text: str, env: dict[str, str], *arguments: str) -> list[str]:
    """Run a program in a folder of its own; its lines."""
    (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, name, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_readmes_producer_shows_progress_and_prints_the_report(
    workers: Start, env: dict[str, str], tmp_path: Path
) -> None:
    corpus = tmp_path / "documents"
    corpus.mkdir()
    (corpus / "postgres.md").write_text(_PAGE)
    workers(THREADLINE_CORPUS=str(corpus))
    program = next(found.text for found in blocks(ROOT / "README.md") if found.language == "python")
    lines = _run(tmp_path, "service.py", program, env)
    assert lines[:2] == ["0-1 queued", "1-1 started"]
    assert "1-2 updates" in lines
    end = lines.index("2-1 succeeded")
    report = "\n".join(lines[end + 1 :])
    assert report.startswith("# What changed in PostgreSQL 18?")
    assert "asynchronous I/O" in report


async def test_the_readmes_own_graph_runs_as_an_agent(
    workers: Start, client: Client, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "my_agents.py").write_text(block("README.md", "my_agents.py"))
    exported = re.search(r"export THREADLINE_AGENTS=(\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert exported
    workers(THREADLINE_AGENTS=exported[1], PYTHONPATH=f"{tmp_path}:{env['PYTHONPATH']}")
    result = await (await client.enqueue("echo", "hello")).result(timeout=30)
    assert [message["data"]["content"] for message in result["messages"]] == ["hello", "You said: hello"]


async def test_the_protocols_programs_enqueue_and_follow(
    workers: Start, client: Client, env: dict[str, str], tmp_path: Path
) -> None:
    workers()
    strangers = {name: env[name] for name in ("PATH", "REDIS_URL")}
    [job_id] = _run(tmp_path, "produce.py", block("docs/protocol.md", "produce.py"), strangers, "chat", "hello")
    follow = block("docs/protocol.md", "follow.py")
    events = [json.loads(line) for line in _run(tmp_path, "follow.py", follow, strangers, job_id)]
    assert [(event["id"], event["type"]) for event in events] == [
        ("0-1", "queued"),
        ("1-1", "started"),
        ("1-2", "updates"),
        ("2-1", "succeeded"),
    ]
    again = [json.loads(line) for line in _run(tmp_path, "follow.py", follow, strangers, job_id, "1-1")]
    assert again == events[2:]
    assert _run(tmp_path, "follow.py", follow, strangers, job_id, "2-1") == []
    assert (await (await client.job(job_id)).status()).state == "succeeded"


async def test_the_protocols_arq_enqueues(workers: Start, client: Client, redis_url: str) -> None:
    workers()
    program = next(
        found for found in blocks(ROOT / "docs/protocol.md") if found.language == "python" and not found.name
    )
    module = types.ModuleType("enqueue")
    exec(compile(program.text, "docs/protocol.md", "exec"), module.__dict__)  # noqa: S102 - the document's own program
    job_id = uuid.uuid4().hex
    job = {"v": 1, "job_id": job_id, "agent": "chat", "input": "hello", "thread_id": uuid.uuid4().hex}
    await module.enqueue(redis_url, job)
    await _until_adopted(redis_url, job_id)
    events = [event async for event in (await client.job(job_id)).events()]
    assert events[-1].type == "succeeded"


async def _until_adopted(redis_url: str, job_id: str) -> None:
    """Its log begins when a worker has it in the ledger; a client without a database can tell."""
    async with asyncio.timeout(30), Client(redis_url=redis_url) as follower:
        async for _event in (await follower.job(job_id)).events():
            return
