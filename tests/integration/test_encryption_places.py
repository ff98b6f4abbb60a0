"""What is sealed opens at its own place only, also when somebody moves rows; before, during and after a migration."""

from __future__ import annotations

import json
import operator
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langgraph.graph import END, START, StateGraph

from support.desk import Desk, desk_on
from threadline import CannotDecrypt, InvalidJob
from threadline.contract.job import JobRequest, new_id
from threadline.encryption.vault import PLAIN, Vault
from threadline.ledger.custody import Claim, Custody
from threadline.settings import ClientSettings
from threadline.sync import Client as SyncClient
from threadline_worker.checkpoints import Fence, FencedSaver
from threadline_worker.effects import LedgerEffects
from threadline_worker.encrypted_store import SearchInSealedValuesError
from threadline_worker.memory_store import FencedStore, StoreConfig

KEYS = {"k1": bytes(range(32))}
SEALED = Vault(KEYS)
MIGRATING = Vault(KEYS, reads_plaintext=True)
ROTATED = Vault({"k2": bytes(range(1, 33)), **KEYS})


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with desk_on(database_url) as made:
        yield made


class State(TypedDict, total=False):
    said: str
    count: int
    listed: Annotated[list[str], operator.add]


async def _step(state: State) -> dict[str, Any]:
    return {"count": state.get("count", 0) + 1, "listed": [f"{state['said']} {state.get('count', 0)}"]}


def graph_of(saver: FencedSaver) -> Any:
    graph = StateGraph(State)
    graph.add_node("step", _step)
    graph.add_edge(START, "step")
    graph.add_edge("step", END)
    return graph.compile(checkpointer=saver)


def saver_of(desk: Desk, claim: Claim, vault: Vault) -> FencedSaver:
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    return FencedSaver(desk.checkpoints.pool, fence, desk.queries, vault=vault)


async def run(desk: Desk, claim: Claim, vault: Vault, given: State) -> State:
    config = {"configurable": {"thread_id": claim.thread_id}}
    result: State = await graph_of(saver_of(desk, claim, vault)).ainvoke(given, config, durability="sync")
    return result


async def values(desk: Desk, claim: Claim, vault: Vault) -> Any:
    config = {"configurable": {"thread_id": claim.thread_id}}
    return (await graph_of(saver_of(desk, claim, vault)).aget_state(config)).values


# Checkpoints:


async def test_a_plain_thread_goes_on_through_a_migration_with_nothing_lost(desk: Desk) -> None:
    claim = await desk.claim("t")
    await run(desk, claim, PLAIN, {"said": "hello"})
    with pytest.raises(CannotDecrypt, match="is plaintext"):
        await values(desk, claim, SEALED)
    for count in (2, 3):  # `said` is a scalar that no later step writes
        assert (await run(desk, claim, MIGRATING, {"listed": []}))["count"] == count
        wanted = {"said": "hello", "count": count, "listed": [f"hello {n}" for n in range(count)]}
        assert await values(desk, claim, MIGRATING) == wanted
    newest = desk.view.rows("SELECT checkpoint, metadata FROM checkpoints ORDER BY checkpoint_id DESC LIMIT 1")[0]
    assert "hello" not in json.dumps(newest)
    assert await values(desk, claim, SEALED) == wanted, "its head was written by then without a plain value"


async def test_a_thread_goes_on_under_a_newer_key(desk: Desk) -> None:
    claim = await desk.claim("t")
    await run(desk, claim, SEALED, {"said": "hello"})
    assert (await run(desk, claim, ROTATED, {"listed": []}))["listed"] == ["hello 0", "hello 1"]
    with pytest.raises(CannotDecrypt, match="'k2'"):
        await values(desk, claim, SEALED)


async def test_what_sql_and_langgraph_look_for_is_found(desk: Desk) -> None:
    claim = await desk.claim("t")
    saver = saver_of(desk, claim, SEALED)
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}, "metadata": {"job_id": "j", "tag": "x"}}
    await graph_of(saver).ainvoke({"said": "hello"}, config, durability="sync")
    root = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    assert len([found async for found in saver.alist(root, filter={"job_id": "j", "step": 1})]) == 1
    assert len([found async for found in saver.alist(root, filter={"tag": "x"}, limit=2)]) == 2
    assert [found async for found in saver.alist(root, filter={"tag": "y"})] == []
    stored = desk.view.rows("SELECT metadata FROM checkpoints")[0]["metadata"]
    assert stored.keys() <= {"job_id", "step", "source", "parents", "sealed"}


MOVES = {
    "a value of another thread": (
        "UPDATE checkpoint_blobs AS b SET blob = o.blob FROM checkpoint_blobs AS o"
        " WHERE b.thread_id = 't' AND o.thread_id = 'other' AND b.channel = o.channel"
    ),
    "another value of the thread": (
        "UPDATE checkpoint_blobs AS b SET blob = o.blob FROM checkpoint_blobs AS o"
        " WHERE b.thread_id = 't' AND o.thread_id = 't' AND b.channel = 'said' AND o.channel = 'count'"
    ),
    "an earlier version": (
        "UPDATE checkpoint_blobs AS b SET blob = o.blob FROM checkpoint_blobs AS o"
        " WHERE b.thread_id = 't' AND o.thread_id = 't' AND b.channel = o.channel AND o.version < b.version"
    ),
    "another form": "UPDATE checkpoint_blobs SET type = 'json+sealed' WHERE thread_id = 't'",
    "a plain value": "UPDATE checkpoint_blobs SET type = 'msgpack', blob = '\\xa3616263' WHERE channel = 'said'",
    "a plain scalar": (
        "UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{channel_values,said}', '\"forged\"')"
    ),
    "another checkpoint's metadata": (
        "UPDATE checkpoints AS c SET metadata = o.metadata FROM checkpoints AS o WHERE c.thread_id = o.thread_id"
        " AND o.checkpoint_id < c.checkpoint_id"
    ),
    "another checkpoint's versions": (
        "UPDATE checkpoints AS c SET checkpoint = jsonb_set(c.checkpoint, '{channel_versions}',"
        " o.checkpoint -> 'channel_versions') FROM checkpoints AS o WHERE c.thread_id = o.thread_id"
        " AND o.checkpoint_id < c.checkpoint_id"
    ),
    "plain metadata": "UPDATE checkpoints SET metadata = metadata - 'sealed'",
    "a plain write": (
        "INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)"
        " SELECT thread_id, checkpoint_ns, checkpoint_id, 'x', -4, '__resume__', 'msgpack', '\\xa3616263'"
        " FROM checkpoints"
    ),
    "another task's write": "UPDATE checkpoint_writes SET task_id = 'x'",
}


@pytest.mark.parametrize("move", MOVES)
async def test_rows_that_are_moved_or_made_up_are_refused(desk: Desk, move: str) -> None:
    for thread in ("other", "t"):
        claim = await desk.claim(thread)
        saver = saver_of(desk, claim, SEALED)
        await graph_of(saver).ainvoke({"said": thread}, {"configurable": {"thread_id": thread}}, durability="sync")
        await graph_of(saver).ainvoke({"said": thread}, {"configurable": {"thread_id": thread}}, durability="sync")
        head = await saver.aget_tuple({"configurable": {"thread_id": thread}})
        assert head is not None
        await saver.aput_writes({"configurable": {**head.config["configurable"]}}, [("said", "pending")], "task")
    assert (await values(desk, claim, SEALED))["said"] == "t"
    desk.view.rows(MOVES[move])
    with pytest.raises(CannotDecrypt):
        await values(desk, claim, SEALED)


# Jobs:


async def enqueued(desk: Desk, vault: Vault, **more: Any) -> str:
    request = JobRequest(
        **{
            "job_id": new_id(),
            "agent": "steps",
            "input": {"said": "x"},
            "thread_id": "t",
            "idempotency_key": "k",
            **more,
        }
    )
    ledger = Custody(desk.database, desk.queries, vault=vault)
    stored = await ledger.enqueue(request, fingerprint=request.fingerprint(), dispatching=False, check_agent=False)
    return stored.job_id


async def test_equal_requests_are_one_job_whatever_key_or_migration_comes_between(desk: Desk) -> None:
    plain = await enqueued(desk, PLAIN)
    assert await enqueued(desk, MIGRATING) == plain
    with pytest.raises(InvalidJob, match="used for another request"):
        await enqueued(desk, SEALED)
    sealed = await enqueued(desk, SEALED, idempotency_key="s")
    assert await enqueued(desk, ROTATED, idempotency_key="s") == sealed
    with pytest.raises(InvalidJob, match="used for another request"):
        await enqueued(desk, ROTATED, idempotency_key="s", input={"said": "y"})
    told = desk.view.job(sealed)["fingerprint"]
    assert told.startswith("k1:")
    assert desk.view.job(plain)["fingerprint"] not in told


async def test_the_same_holds_on_a_blocking_callers_connection(desk: Desk, database_url: str, redis_url: str) -> None:
    def ask(vault: Vault, said: str) -> str:
        settings = ClientSettings(redis_url=redis_url, database_url=database_url, vault=vault)
        with SyncClient(settings=settings) as client, psycopg.connect(database_url) as connection:
            job = client.enqueue("steps", {"said": said}, thread_id="t", idempotency_key="k", connection=connection)
            return job.job_id

    first = ask(SEALED, "x")
    assert ask(ROTATED, "x") == first
    with pytest.raises(InvalidJob, match="used for another request"):
        ask(ROTATED, "y")


async def test_a_job_with_anothers_input_is_not_run(desk: Desk) -> None:
    ids = [await enqueued(desk, SEALED, thread_id=name, idempotency_key=name) for name in ("a", "b")]
    await desk.register("w")
    ledger = Custody(desk.database, desk.queries, vault=SEALED)
    desk.view.rows("UPDATE jobs AS j SET input = o.input FROM jobs AS o WHERE j.job_id = %s AND o.job_id = %s", *ids)
    claim = await ledger.claim(ids[0], "w")
    assert isinstance(claim, Claim)
    with pytest.raises(CannotDecrypt, match="changed, moved"):
        ledger.unsealed(claim)
    desk.view.rows("UPDATE jobs SET input = NULL")
    with pytest.raises(CannotDecrypt, match="plaintext"):
        ledger.unsealed(claim._replace(input=None))


# Effects and memories:


async def test_an_effect_is_bound_to_its_key(desk: Desk) -> None:
    claim = await desk.claim("t")
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    effects = LedgerEffects(desk.database, desk.database, desk.queries, fence, vault=SEALED)
    for key in ("a", "b"):
        await effects.begin(key, mark=True)
        assert await effects.finish(key, json.dumps({"did": key})) == f'{{"did":"{key}"}}'
    assert (await effects.begin("a", mark=True)).result == '{"did":"a"}'
    desk.view.rows("UPDATE effects SET result = (SELECT result FROM effects WHERE key = 'a') WHERE key = 'b'")
    with pytest.raises(CannotDecrypt):
        await effects.begin("b", mark=True)


@asynccontextmanager
async def store_of(desk: Desk, vault: Vault) -> AsyncIterator[FencedStore]:
    claim = await desk.claim(new_id())
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
    store = FencedStore(desk.checkpoints.pool, fence, desk.queries, StoreConfig(vault=vault))
    try:
        yield store
    finally:
        store.stop()


async def test_a_memory_is_bound_to_its_user_and_key(desk: Desk) -> None:
    async with store_of(desk, SEALED) as store:
        for user in ("u", "v"):
            await store.aput(("memories", user), "a", {"text": f"hello {user}"})
        found = await store.aget(("memories", "u"), "a")
        assert found is not None
        assert found.value == {"text": "hello u"}
        assert {item.value["text"] for item in await store.asearch(("memories",), query="hello")} == {
            "hello u",
            "hello v",
        }
        with pytest.raises(SearchInSealedValuesError, match="filter="):
            await store.asearch(("memories",), filter={"text": "hello u"})
        assert "hello" not in json.dumps(desk.view.dump("store"))
        desk.view.rows("UPDATE store SET value = (SELECT value FROM store WHERE prefix = 'memories.v')")
        with pytest.raises(CannotDecrypt):
            await store.aget(("memories", "u"), "a")


async def test_plain_memories_are_read_in_a_migration_only(desk: Desk) -> None:
    async with store_of(desk, PLAIN) as store:
        await store.aput(("memories", "u"), "a", {"text": "hello"})
    async with store_of(desk, SEALED) as store:
        with pytest.raises(CannotDecrypt, match=r"store\.value is plaintext"):
            await store.aget(("memories", "u"), "a")
    async with store_of(desk, MIGRATING) as store:
        found = await store.aget(("memories", "u"), "a")
        assert found is not None
        assert found.value == {"text": "hello"}
        await store.aput(("memories", "u"), "a", found.value)
    assert "hello" not in json.dumps(desk.view.dump("store"))
