"""Rules whose break the long way through workers would hide: other rules would repair it, or nobody would look."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from psycopg import AsyncCursor

from support.desk import Desk, desk_on
from support.gates import until
from support.logs import log_on
from threadline.contract.events import decode_event
from threadline.redis_client import connect_redis
from threadline_worker.checkpoints import LeaseLost


@pytest.fixture
async def desk(database_url):
    async with desk_on(database_url) as made:
        yield made


async def test_F1_a_writer_that_stops_behind_its_write_holds_up_no_rescuer(desk: Desk, monkeypatch) -> None:
    """Stopped when its checkpoint is on the server, with what was sent before it and nothing that comes after.

    The rescue alone, without F3's help: a check in front of the write would hold the job's row all that time.
    """
    claim = await desk.claim("t")
    written, go_on = asyncio.Event(), asyncio.Event()
    execute = AsyncCursor.execute

    async def paused(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:
        answer = await execute(cursor, query, *args, **more)
        if "INSERT INTO checkpoints" in str(query):
            cursor.connection.pgconn.send_flush_request()
            cursor.connection.pgconn.flush()
            written.set()
            await go_on.wait()
        return answer

    monkeypatch.setattr(AsyncCursor, "execute", paused)
    where: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    writing = asyncio.create_task(
        desk.saver(claim).aput(where, empty_checkpoint(), {"source": "loop", "step": 1, "parents": {}}, {})
    )
    await written.wait()
    inserted = (
        "SELECT 1 FROM pg_locks JOIN pg_class c ON c.oid = relation"
        " WHERE c.relname = 'checkpoints' AND mode = 'RowExclusiveLock'"
    )
    await until(lambda: desk.view.rows(inserted) or None, "the write is done")
    async with asyncio.timeout(1.5):
        rescued = await desk.rescue("w-a")
    go_on.set()
    with pytest.raises(LeaseLost):
        await writing
    assert [row["job_id"] for row in rescued] == [claim.job_id]
    assert desk.view.dump("checkpoints") == {"checkpoints": []}


async def test_P1_what_the_log_refuses_nobody_hears(redis_url: str) -> None:
    """A stale epoch's events are neither in the stream nor on the channels: whoever only subscribes is not misled."""
    redis = connect_redis(redis_url)
    async with log_on(redis_url) as log:
        pubsub = redis.pubsub()
        await pubsub.subscribe(log.key)
        await log.add(("2-1", "resumed"))
        await log.add("1-5")
        await log.add("2-1")
        await log.add("2-2")
        heard: list[str | None] = []
        while "2-2" not in heard:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None and message["channel"] == log.key.encode():
                heard.append(decode_event(message["data"]).id)
        assert heard == ["0-1", "2-1", "2-2"]
        assert await log.entries() == ["0-1", "2-1", "2-2"]
        await pubsub.aclose()
    await redis.aclose()
