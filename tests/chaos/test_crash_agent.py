"""R2, R3: a real deep agent, killed at each call of its saver and picked up by another worker, ends as if undisturbed.

Here at some points that a seed chooses; at all of them with CRASH_POINTS=all (CRASH_POINTS=n: at n of them).
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from support.desk import LedgerView
from support.nursery import called

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.1", "THREADLINE_LEASE_SECONDS": "5", "THREADLINE_DRAIN_SECONDS": "5"}
INPUT = {"messages": [{"role": "user", "content": "tell me of alpha and beta"}]}
APPROVED = {"decisions": [{"type": "approve"}]}
POINTS = os.environ.get("CRASH_POINTS", "10")
SEED = os.environ.get("CRASH_SEED", "1")


def test_R2_a_deep_agent_killed_at_every_saver_call_ends_as_if_undisturbed(env, database_url, capsys) -> None:
    view = LedgerView(database_url)
    *killed, undisturbed = sweep(env)
    wanted = end(view, undisturbed)
    assert wanted["states"] == ["interrupted", "succeeded"]
    assert sorted(wanted["result"]["files"]) == ["/alpha.md", "/beta.md", "/report.md"]
    assert [todo["status"] for todo in wanted["result"]["todos"]] == ["completed", "completed"]
    once = effects(env, undisturbed)
    assert set(once.values()) == {1}
    most: Counter[str] = Counter()
    for point in killed:
        where = f"killed at {point['point']}, head {point['head']}"
        assert point["killed"], where
        assert difference(end(view, point), wanted) == [], where
        again = effects(env, point) - once
        assert set(again.values()) <= {1}, f"{where}: {again}"
        assert set(effects(env, point)) == set(once), where
        repeated = Counter(" ".join(what.split()[:2]) if what.startswith("model") else "tools" for what in again)
        # Each of the agents that are at work has one step in flight: a model call, or the tools of one message.
        assert all(count == 1 for who, count in repeated.items() if who != "tools"), f"{where}: {again}"
        most |= repeated + Counter({"models in all": sum(what.startswith("model") for what in again)})
    with capsys.disabled():
        print(f"\ndeep agent: {len(killed)} crash points, 0 differences; most repeated: {dict(most)}")  # noqa: T201 - a figure


def sweep(env: dict[str, str]) -> list[dict[str, Any]]:
    Path(env["TEST_GATES"]).mkdir()
    sample = [] if POINTS == "all" else ["--sample", POINTS, "--seed", SEED]
    done = called(
        ["deep", json.dumps(INPUT), "--answer", json.dumps(APPROVED), *sample],
        {**env, **QUICK, "THREADLINE_AGENTS": "deep=support.crash_agent:deep"},
        module="support.crash_sweep",
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def difference(found: Any, wanted: Any) -> list[str]:
    texts = [json.dumps(one, indent=1, sort_keys=True).splitlines() for one in (found, wanted)]
    return list(difflib.unified_diff(*texts, lineterm="", n=1))[:20]


def effects(env: dict[str, str], point: dict[str, Any]) -> Counter[str]:
    lines = (Path(env["TEST_GATES"]) / "effects").read_text().splitlines()
    return Counter(line.partition(" ")[2] for line in lines if line.split()[0] == point["thread"])


def end(view: LedgerView, point: dict[str, Any]) -> dict[str, Any]:
    """What it came to; of ids only those that the model gave, and of files not when they were written."""
    rows = [view.job(job) for job in point["jobs"]]
    result = rows[-1]["result"]
    for message in (result or {}).get("messages", []):
        if message["type"] != "ai":
            del message["data"]["id"]
    for file in (result or {}).get("files", {}).values():
        del file["created_at"], file["modified_at"]
    return {
        "states": [row["state"] for row in rows],
        "asked": [prompt["value"] for prompt in rows[0]["interrupts"] or []],
        "charged": [row["failures"] for row in rows],
        "result": result,
    }
