"""Two workers without an agent, played by the test through the real ledger and the real log."""

from __future__ import annotations

import asyncio
from typing import Any

from threadline.contract.events import Event, encode_event
from threadline.contract.keys import Keys
from threadline.contract.states import State
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.ledger.transition_event import event_of
from threadline.log.append import EventLog
from threadline.redis_client import connect_redis

__all__ = ["Hands", "answer", "call"]

_KEYS = Keys()


class Hands:
    """Two workers without an agent: they claim, tell and end as they are told."""

    def __init__(self, env: dict[str, str]) -> None:
        self._runner = asyncio.Runner()
        self._database = Database(env["DATABASE_URL"], application_name="test")
        self._redis = connect_redis(env["REDIS_URL"])
        self._custody = Custody(self._database, Queries(_KEYS.schema))
        self._log = EventLog(self._redis, _KEYS, max_events=10_000, ttl_seconds=600)
        self._n = 1
        for name in ("worker-1", "worker-2"):
            self._run(self._register(name))

    def close(self) -> None:
        self._run(self._database.close())
        self._run(self._redis.aclose())
        self._runner.close()

    def claim(self, job: str, worker: str = "worker-1") -> Claim:
        claim = self._run(self._custody.claim(job, worker))
        assert isinstance(claim, Claim)
        self._announce(job)
        self._n = 1
        return claim

    def tell(self, claim: Claim, data: Any, kind: str = "updates", ns: tuple[str, ...] = ()) -> None:
        self._n += 1
        event = Event(
            job_id=claim.job_id,
            thread_id=claim.thread_id,
            type=kind,
            id=f"{claim.epoch}-{self._n}",
            ns=list(ns),
            data=data,
        )
        pair = (self._n, encode_event(event))
        self._run(self._log.append(claim.job_id, claim.thread_id, claim.epoch, [pair]))

    def release(self, claim: Claim, code: str) -> None:
        self._run(self._custody.release(claim, code))
        self._announce(claim.job_id)

    def finish(self, claim: Claim, state: State, **how: Any) -> None:
        self._run(self._custody.finish(claim, state, **how))
        self._announce(claim.job_id)

    def announce_only(self, job: str, kinds: list[str]) -> None:
        """Transitions of a job that no ledger has, one epoch each."""
        for epoch, kind in enumerate(kinds, start=1):
            event = Event(job_id=job, thread_id="t", type=kind, id=f"{epoch}-1", data={})
            self._run(self._log.append(job, "t", epoch, [(1, encode_event(event))]))

    def _announce(self, job: str) -> None:
        row = self._run(self._custody.transition(job))
        self._run(self._log.append(job, row["thread_id"], row["epoch"], [(1, encode_event(event_of(row)))]))

    async def _register(self, name: str) -> None:
        agents = {"worker_id": name, "lock_key": 1, "version": "1", "agents": '{"research": {}}', "concurrency": 1}
        await self._database.rows(self._custody.queries["register"], {**agents, "queues": ["default"]})

    def _run(self, call: Any) -> Any:
        return self._runner.run(call)


def call(key: str, name: str, **args: Any) -> dict[str, Any]:
    """A model's update that asks for a tool."""
    return {
        "messages": [
            {"type": "ai", "data": {"id": f"m-{key}", "tool_calls": [{"id": key, "name": name, "args": args}]}}
        ]
    }


def answer(key: str) -> dict[str, Any]:
    """The tool's answer."""
    return {"messages": [{"type": "tool", "data": {"tool_call_id": key, "content": "ok"}}]}
