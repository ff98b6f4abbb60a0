"""The store on Postgres: what expires, what is found by meaning, who keeps it, and names that change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp

from support.desk import Desk, desk_on
from threadline.contract.keys import Keys
from threadline.encryption.vault import PLAIN, Vault
from threadline.ledger.database import Database
from threadline_worker.checkpoints import Fence, LeaseLost
from threadline_worker.memory.embeddings import HashingEmbeddings
from threadline_worker.memory.index import drop_index, open_store, set_up_index, store_config
from threadline_worker.memory.keeper import Keeper
from threadline_worker.memory.moves import moves_of_user
from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import parse_routes
from threadline_worker.memory.settings import MemorySettings
from threadline_worker.memory_store import FencedStore, MemoryStore, StoreConfig

KEYS = Keys()
OFFLINE = MemorySettings(embeddings="offline")
ROUTES = parse_routes("/memories/=user:rw")


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with desk_on(database_url) as made:
        yield made


@asynccontextmanager
async def store_on(desk: Desk, config: StoreConfig | None = None) -> AsyncIterator[MemoryStore]:
    store = MemoryStore(desk.checkpoints.pool, config)
    try:
        yield store
    finally:
        store.stop()


@asynccontextmanager
async def indexed(desk: Desk) -> AsyncIterator[tuple[MemoryStore, StoreConfig]]:
    assert await set_up_index(desk.checkpoints, KEYS, OFFLINE, PLAIN) is None
    config, why = await store_config(desk.checkpoints, KEYS, OFFLINE, PLAIN)
    assert why is None
    async with store_on(desk, config) as store:
        yield store, config


def keeper(desk: Desk, config: StoreConfig | None = None) -> Keeper:
    return Keeper(desk.checkpoints, KEYS, config or StoreConfig(), interval=60)


def file(text: str) -> dict[str, Any]:
    return {"content": text, "encoding": "utf-8"}


async def texts(store: MemoryStore, query: str | None = None, namespace: tuple[str, ...] = ("m",)) -> list[str]:
    return [item.value["content"] for item in await store.asearch(namespace, query=query)]


async def expire(desk: Desk, key: str) -> None:
    """As if its time had passed."""
    desk.view.rows("UPDATE store SET expires_at = now() - interval '1 second' WHERE key = %s", key)


async def test_what_has_expired_is_read_by_nobody_and_deleted_by_the_sweep(desk: Desk) -> None:
    async with store_on(desk, StoreConfig(ttl_minutes=5)) as store, store_on(desk) as without_ttl:
        await store.aput(("m",), "kept", file("kept"))
        await store.aput(("m",), "gone", file("gone"))
        await store.aput(("other",), "gone", file("gone"))
        await without_ttl.aput(("m",), "for ever", file("for ever"))
        await expire(desk, "gone")
        # Also where no TTL is configured any more.
        for reader in (store, without_ttl):
            assert await reader.aget(("m",), "gone") is None
            assert sorted(await texts(reader)) == ["for ever", "kept"]
            assert ("other",) not in await reader.alist_namespaces()
        assert len(desk.view.rows("SELECT 1 FROM store")) == 4
        assert await keeper(desk).round() == (2, 0)
        assert sorted(row["key"] for row in desk.view.rows("SELECT key FROM store")) == ["for ever", "kept"]


async def test_reading_begins_an_items_time_anew_only_if_configured(desk: Desk) -> None:
    until = "SELECT expires_at FROM store WHERE key = 'k'"
    for refresh in (False, True):
        async with store_on(desk, StoreConfig(ttl_minutes=5, ttl_refresh=refresh)) as store:
            await store.aput(("m",), "k", file("x"))
            before = desk.view.rows(until)
            await store.aget(("m",), "k")
            await texts(store)
            assert (desk.view.rows(until) != before) is refresh


async def test_one_worker_at_a_time_keeps_the_store_and_a_dead_one_leaves_no_lock(desk: Desk) -> None:
    async with indexed(desk) as (store, config):
        await store.abatch([PutOp(("m",), str(n), file(f"note {n}"), index=False) for n in range(3)])
        desk.view.rows("DELETE FROM store_vectors")
        entered, go_on = asyncio.Event(), asyncio.Event()

        class Slow(HashingEmbeddings):
            async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
                entered.set()
                await go_on.wait()
                return self.embed_documents(texts)

        slow: Any = {**(config.index or {}), "embed": Slow()}
        first = asyncio.create_task(keeper(desk, StoreConfig(index=slow)).round())
        await entered.wait()
        assert await keeper(desk, config).round() is None  # another one is at it
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        for _ in range(500):  # Postgres notices the closed socket in its own time
            if (done := await keeper(desk, config).round()) is not None:
                break
            await asyncio.sleep(0.01)
        assert done == (0, 3)


async def test_files_are_found_by_meaning_each_user_among_their_own(desk: Desk) -> None:
    async with indexed(desk) as (store, _):
        for n in range(300):  # all nearer to the question than Bob's only note
            await store.aput(("m", "ann"), str(n), file(f"the order was shipped {n}"))
        await store.aput(("m", "bob"), "tea", file("Bob likes tea; his order came late"))
        await store.aput(("m", "bob"), "hill", file("A hill near the sea"))
        found = await store.asearch(("m", "bob"), query="Which order was shipped?", limit=1)
        assert [(item.key, item.score is not None) for item in found] == [("tea", True)]


async def test_existing_changed_and_missed_files_are_indexed_by_the_keeper(desk: Desk) -> None:
    async with store_on(desk) as plain:
        await plain.aput(("m",), "old", file("the harbour at night"))
        await plain.aput(("m",), "binary", {"content": "AAAA", "encoding": "base64"})
        await plain.aput(("m",), "blank", file(" \n"))
        await plain.aput(("m",), "no file", {"score": 3})
    async with indexed(desk) as (store, config):
        assert await keeper(desk, config).round() == (0, 1)
        assert await keeper(desk, config).round() == (0, 0)
        async with store_on(desk) as plain:  # a worker that has no model
            await plain.aput(("m",), "old", file("green tea with lemon"))
        assert await keeper(desk, config).round() == (0, 1)
        found = await store.asearch(("m",), query="tea with lemon", limit=1)
        assert found[0].key == "old"
        assert (found[0].score or 0) > 0.5
        await store.aput(("m",), "binary", {"content": "AAAA", "encoding": "base64"})
        await store.aput(("m",), "blank", file(" \n"))
        assert [row["key"] for row in desk.view.rows("SELECT key FROM store_vectors")] == ["old"]


class Broken(Embeddings):
    """A service that is away."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise ConnectionError("no route to host")

    def embed_query(self, text: str) -> list[float]:
        raise ConnectionError("no route to host")


async def test_a_service_that_is_away_costs_the_search_not_the_memory(desk: Desk) -> None:
    async with indexed(desk) as (_, config):
        broken: Any = {**(config.index or {}), "embed": Broken()}
        with structlog.testing.capture_logs() as logs:
            async with store_on(desk, StoreConfig(index=broken)) as store:
                await store.aput(("m",), "k", file("kept"))
                assert await texts(store, "anything") == ["kept"]
            assert await keeper(desk, StoreConfig(index=broken)).round() == (0, 0)
        assert [entry["event"] for entry in logs] == ["store.embedding_failed"] * 3
        assert await keeper(desk, config).round() == (0, 1)


async def test_an_index_that_is_remade_under_a_running_worker_is_said_once(desk: Desk) -> None:
    async with indexed(desk) as (store, config):
        await drop_index(desk.checkpoints, KEYS)
        assert await set_up_index(desk.checkpoints, KEYS, MemorySettings(embeddings="offline", dims=8), PLAIN) is None
        with structlog.testing.capture_logs() as logs:
            await store.aput(("m",), "a", file("kept"))
            await store.aput(("m",), "b", file("kept too"))
            assert sorted(await texts(store, "kept")) == ["kept", "kept too"]
        assert [entry["event"] for entry in logs] == ["store.unindexed"]
        assert config.index is None


async def test_why_there_is_no_search_by_meaning_is_said_once(desk: Desk) -> None:
    async def said(settings: MemorySettings, vault: Vault = PLAIN) -> str:
        with structlog.testing.capture_logs() as logs:
            assert (await open_store(desk.checkpoints, KEYS, settings, vault)).index is None
        (entry,) = logs
        return str(entry["why"])

    assert "threadline migrate" in await said(OFFLINE)
    assert "nosuch" in str(await set_up_index(desk.checkpoints, KEYS, MemorySettings(embeddings="nosuch:m"), PLAIN))
    assert await set_up_index(desk.checkpoints, KEYS, OFFLINE, PLAIN) is None
    assert await set_up_index(desk.checkpoints, KEYS, OFFLINE, PLAIN) is None  # again
    assert "--rebuild" in await said(MemorySettings(embeddings="offline", dims=8))
    assert "--rebuild" in await said(MemorySettings(embeddings="openai:text-embedding-3-small"))
    assert "ENCRYPTION" in await said(OFFLINE, Vault({"k": b"k" * 32}))
    with structlog.testing.capture_logs() as logs:
        assert (await open_store(desk.checkpoints, KEYS, OFFLINE, PLAIN)).index is not None
        assert (await open_store(desk.checkpoints, KEYS, MemorySettings(), PLAIN)).index is None  # not configured
    assert logs == []


async def test_without_pgvector_there_is_a_sentence_and_everything_else_works(desk: Desk, database_url: str) -> None:
    desk.view.rows("DROP EXTENSION IF EXISTS vector")
    desk.view.rows("DROP ROLE IF EXISTS no_admin")
    desk.view.rows("CREATE ROLE no_admin LOGIN PASSWORD 'p'")
    desk.view.rows("GRANT ALL ON SCHEMA threadline TO no_admin")
    try:
        async with Database(
            database_url, application_name="t", options="-c role=no_admin -c search_path=threadline,public"
        ) as database:
            assert "pgvector" in str(await set_up_index(database, KEYS, OFFLINE, PLAIN))
    finally:
        desk.view.rows("DROP OWNED BY no_admin")
        desk.view.rows("DROP ROLE no_admin")
    async with store_on(desk) as store:
        await store.aput(("m",), "k", file("x"))
        assert await texts(store, "x") == ["x"]


@pytest.mark.parametrize("vault", [PLAIN, Vault({"k": b"k" * 32})], ids=["plain", "sealed"])
async def test_F2_earlier_names_come_to_todays_and_the_newer_of_two_is_kept(desk: Desk, vault: Vault) -> None:
    config = StoreConfig(vault=vault)
    before, now = UserNames((b"o" * 32,)), UserNames((b"n" * 32, b"o" * 32))
    first, earlier, today = (("memories", names.name("u")) for names in (UserNames(), before, now))
    other = ("memories", UserNames().name("v"))
    claim = await desk.claim("t")
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    store = FencedStore(desk.checkpoints.pool, fence, desk.queries, config)
    stale = FencedStore(desk.checkpoints.pool, fence._replace(epoch=9), desk.queries, config)
    try:
        await store.aput(first, "/a", file("of 0.1.0"))
        await store.aput(first, "/both", file("older"))
        await store.aput(other, "/a", file("of another"))
        await store.aput(earlier, "/both", file("newer"))
        await store.aput(first, "/kept", file("older"))
        await store.aput(today, "/kept", file("today's"))
        moves = moves_of_user(now, ROUTES, "u")
        with pytest.raises(LeaseLost):
            await stale.move(moves, desk.queries)
        for _ in range(2):
            await store.move(moves, desk.queries)
            found = {item.key: item.value["content"] for item in await store.asearch(today)}
            assert found == {"/a": "of 0.1.0", "/both": "newer", "/kept": "today's"}
            assert await store.asearch(first) == await store.asearch(earlier) == []
        assert await texts(store, namespace=other) == ["of another"]
    finally:
        store.stop()
        stale.stop()
