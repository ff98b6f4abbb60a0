"""The research graph through the queue against a server that speaks OpenAI's API: streaming, tools, 429 and 500."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.openai_server import OpenAIServer, scripted_research
from threadline import Client


def _corpus(folder: Path) -> Path:
    folder.mkdir()
    (folder / "pools.md").write_text(
        "# Connection pools\n\nA connection pool keeps connections open, so that no request waits for a new one.\n"
    )
    return folder


async def test_a_model_behind_http_is_driven_through_the_queue_and_its_hiccups_are_survived(
    client: Client, workers: Callable[..., Any], env: dict[str, str], tmp_path: Path
) -> None:
    with OpenAIServer(scripted_research) as server:
        worker = workers(
            THREADLINE_MODEL="openai:gpt-scripted",
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="sk-test-canary-3141592653",
            THREADLINE_LOG_CONTENT="on",
            THREADLINE_CORPUS=str(_corpus(tmp_path / "corpus")),
        )
        # More than the provider's own client retries (2): the job goes back to the queue, charged, and comes again.
        server.fail(429, retry_after=0.1, times=3)
        job = await client.enqueue("research", "What does a connection pool do?", user_id="u")
        events = [event async for event in job.events()]
        result = await job.result(timeout=60)
        server.fail(500, times=1)
        second = await client.enqueue("research", "And what else?", user_id="u", thread_id=job.thread_id)
        assert (await second.result(timeout=60))["report"]

    kinds = [event.type for event in events]
    assert kinds.count("released") == 1
    assert kinds[-1] == "succeeded"
    assert "gap" not in kinds
    assert (await job.status()).failures == 1
    assert 429 in server.statuses
    assert 500 in server.statuses
    assert result["sources"], "a citation of a source that a tool returned stays"
    assert "[1]" in result["report"]
    removed = worker.logged("citation.removed")
    assert removed["citation"] not in result["report"]
    assert (await second.status()).failures == 0, "one error is retried by the provider's client itself"
    assert "sk-test-canary" not in "".join(worker.lines)
