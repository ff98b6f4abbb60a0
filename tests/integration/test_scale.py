"""Many workers over one backlog: each job is claimed exactly once and none is left. The short form of `bench.scale`."""

from __future__ import annotations

from typing import Any

from bench.house import House
from bench.scale import SMALL, simulated
from threadline_worker.embedded import ServerUrls


async def test_L4_O1_of_many_workers_on_one_backlog_each_job_is_claimed_once(
    env: dict[str, str], redis_url: str, database_url: str
) -> None:
    workers: Any = None
    slow = {**env, "THREADLINE_AGENTS": "slow=bench.slow_graph:slow"}
    found = await simulated(House(ServerUrls(redis_url, database_url), workers, slow), SMALL)
    assert (found["wrong"], found["finished"]) == ([], True)
    assert found["claims"] == SMALL.jobs
    assert found["deadlocks"] == 0
    assert found["errors"] == {}
    # Workers that try what others have begun send hundreds.
    assert found["per_job"]["redis_commands"] < 150
