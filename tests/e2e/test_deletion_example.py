"""docs/examples/approved_deletion.py: a worker dies after the prompt, another after the deletion; it happens once."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from support.workers import Workers
from threadline import Client

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.2", "THREADLINE_LEASE_SECONDS": "5"}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("example_deletion", EXAMPLES / "approved_deletion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("scripted", None)


async def test_a_deletion_waits_for_a_person_and_happens_once(
    example: Any, client: Client, env: dict[str, str], tmp_path: Path
) -> None:
    records = tmp_path / "records"
    records.mkdir()
    for name in ("ann.json", "bob.json"):
        (records / name).touch()
    agents = {"THREADLINE_AGENTS": str(EXAMPLES / "memory.json"), "RECORDS": str(records)}
    with Workers({**env, **QUICK, **agents}) as workers:
        asking = workers.start()
        thread = await example.ask(client)
        asking.kill()
        assert sorted(path.name for path in records.iterdir()) == ["ann.json", "bob.json"]

        deleting = workers.start(PAUSE="600")
        answer = asyncio.create_task(example.approve(client, thread))
        await asyncio.to_thread(deleting.logged, "ann.json was deleted")
        deleting.kill()
        assert [path.name for path in records.iterdir()] == ["bob.json"]

        workers.start()
        # Done a second time, it would have failed: there is nothing left to delete.
        assert await answer == "Done: ann.json was deleted."
    assert [path.name for path in records.iterdir()] == ["bob.json"]
