"""What a producer counts is what it made: in the ledger, in the caller's transaction, and carried by Redis alone."""

from __future__ import annotations

from typing import Any

import psycopg
from prometheus_client import CollectorRegistry

from threadline import Client, sync


async def test_each_way_to_enqueue_counts_once(redis_url: str, database_url: str) -> None:
    registry = CollectorRegistry()

    def counted() -> float | None:
        return registry.get_sample_value("threadline_jobs_enqueued_total", {"agent": "steps"})

    async with Client(redis_url=redis_url, database_url=database_url, metrics=registry) as client:
        await client.enqueue("steps", {}, idempotency_key="k")
        await client.enqueue("steps", {}, idempotency_key="k")
        assert counted() == 1
        async with await psycopg.AsyncConnection.connect(database_url) as mine:
            await client.enqueue("steps", {}, connection=mine)
            assert counted() == 2
            await mine.rollback()  # nobody tells the client
        assert counted() == 2
    async with Client(redis_url=redis_url, metrics=registry) as carried:
        await carried.enqueue("steps", {})
    assert counted() == 3
    blocking(redis_url, database_url, metrics=registry)
    assert counted() == 5


def blocking(redis_url: str, database_url: str, **options: Any) -> None:
    with (
        sync.Client(redis_url=redis_url, database_url=database_url, **options) as client,
        psycopg.connect(database_url) as mine,
    ):
        client.enqueue("steps", {})
        client.enqueue("steps", {}, connection=mine)
