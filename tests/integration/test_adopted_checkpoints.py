"""Threads that an application had before Threadline go on through it, with the langgraph.json of docs/examples."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import sql
from psycopg.rows import dict_row

from support.markdown import ROOT
from support.servers import ServerUrls
from support.workers import Workers
from threadline import Client, NotMigrated, ThreadOwnedByAnother
from threadline.contract.keys import Keys
from threadline.errors import ConfigurationError
from threadline.ledger.database import Database
from threadline.settings import ClientSettings
from threadline_worker.backends import migrate_all
from threadline_worker.checkpoint_schema import check_checkpoints

PROJECT = ROOT / "docs" / "examples" / "langgraph-project"
ADOPTING = Keys(adopted="public")

#: The application as it was: LangGraph and its Postgres saver, nothing of Threadline.
BEFORE = """
import asyncio, os
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from my_agent.agent import workflow
from my_agent.utils.state import ContextSchema

async def main():
    async with AsyncPostgresSaver.from_conn_string(os.environ["DATABASE_URL"]) as saver:
        await saver.setup()
        context = ContextSchema(user_id="Bob")
        for thread, stops in (("old", []), ("paused", ["action"])):
            graph = workflow.compile(checkpointer=saver, interrupt_before=stops)
            config = {"configurable": {"thread_id": thread}}
            await graph.ainvoke({"messages": [("user", "where is order 7?")]}, config, context=context)

asyncio.run(main())
"""


def rows(url: str, query: str) -> list[dict[str, object]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="module")
def database(servers: ServerUrls) -> Iterator[str]:
    """The application's database, with Threadline's ledger beside its tables."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    url = f"{servers.database_url.rsplit('/', 1)[0]}/{name}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            variables = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "SHOP_CURRENCY": "USD"}
            subprocess.run([sys.executable, "-c", BEFORE], cwd=PROJECT, env=variables, check=True)
            before = rows(url, "SELECT * FROM public.checkpoints ORDER BY thread_id, checkpoint_id")
            asyncio.run(migrated(url, ADOPTING))
            assert rows(url, "SELECT * FROM public.checkpoints ORDER BY thread_id, checkpoint_id") == before
            yield url
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def migrated(url: str, keys: Keys) -> list[str]:
    async with Database(url, application_name="tests", limit=60) as database:
        return await migrate_all(database, keys)


@pytest.fixture(scope="module")
def house(servers: ServerUrls, database: str) -> Iterator[dict[str, str]]:
    from support.chaos_processes import package_roots

    env = {
        "PATH": os.environ["PATH"],
        "REDIS_URL": f"{servers.redis_url.rsplit('/', 1)[0]}/0",
        "DATABASE_URL": database,
        "PYTHONPATH": os.pathsep.join(package_roots()),
        "THREADLINE_AGENTS": str(PROJECT / "langgraph.json"),
        "THREADLINE_CHECKPOINT_SCHEMA": "public",
        "THREADLINE_METRICS_PORT": "0",
        "THREADLINE_HEARTBEAT_SECONDS": "0.2",
    }
    with Workers(env) as started:
        started.start()
        yield env


@pytest.fixture
async def client(house: dict[str, str]) -> AsyncIterator[Client]:
    async with Client(settings=ClientSettings.from_env(house)) as made:
        yield made


def said(result: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    return [message["data"]["content"] for message in result["messages"]]


async def test_a_thread_from_before_goes_on_with_its_state_and_types(client: Client, database: str) -> None:
    job = await client.enqueue("shop", "hello again", thread_id="old", user_id="Bob", configurable={"greeting": "Hi"})
    told = said(await job.result(timeout=30))
    assert told[0] == "where is order 7?"
    assert told[3] == "Bob, order 7 is shipped; 0 USD to pay."
    assert told[4:] == ["hello again", "Hi. Which order?"]
    # The factory's graph is over the same thread, whose state has the application's own dataclass.
    job = await client.enqueue("shop_for", "and order 8", thread_id="old", user_id="Bob", context={})
    result = await job.result(timeout=30)
    assert said(result)[-1] == "Bob, order 8 is waiting for stock; 0 EUR to pay."
    assert result["order"]["number"] == 8
    async with AsyncPostgresSaver.from_conn_string(database) as saver:  # as the application reads it
        found = await saver.aget_tuple({"configurable": {"thread_id": "old"}})
    assert found is not None
    assert len(found.checkpoint["channel_values"]["messages"]) == 10
    forked = await client.fork("old", user_id="Bob")
    assert len((await client.state(forked, user_id="Bob"))["values"]["messages"]) == 10
    assert rows(database, "SELECT to_regclass('threadline.checkpoints') AS t") == [{"t": None}]


async def test_who_asks_first_owns_a_thread_that_the_ledger_did_not_know(client: Client) -> None:
    job = await client.enqueue("shop", "hello", thread_id="paused", user_id="Bob")
    # It stood before a node; as with LangGraph itself, new input begins a new turn.
    assert said(await job.result(timeout=30))[-1] == "Welcome to the shop. Which order?"
    with pytest.raises(ThreadOwnedByAnother):
        await client.enqueue("shop", "hello", thread_id="paused", user_id="Eve")


async def test_nobody_looks_for_the_threads_elsewhere(client: Client, database: str, house) -> None:
    await (await client.enqueue("shop", "hello", user_id="Bob")).result(timeout=30)
    async with Database(database, application_name="tests") as ledger, ledger.connection() as connection:
        await check_checkpoints(connection, ADOPTING)
        with pytest.raises(NotMigrated, match=r"not in the schema threadline.*THREADLINE_CHECKPOINT_SCHEMA"):
            await check_checkpoints(connection, Keys())
    with pytest.raises(ConfigurationError, match="jobs have run here"):
        await migrated(database, Keys())
    with pytest.raises(ConfigurationError, match="no such schema"):
        await migrated(database, Keys(adopted="elsewhere"))
    assert await migrated(database, ADOPTING) == []


async def test_threads_of_the_ledgers_own_are_not_hidden(empty_database_url: str) -> None:
    await migrated(empty_database_url, Keys())
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA app")
        connection.execute(
            "INSERT INTO threadline.checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ('t', 'c', '{}')"
        )
        with pytest.raises(ConfigurationError, match="threads of its own"):
            await migrated(empty_database_url, Keys(adopted="app"))
        # What a migration without the setting has made, and nobody has used, makes room.
        connection.execute("DELETE FROM threadline.checkpoints")
    await migrated(empty_database_url, Keys(adopted="app"))
    async with Database(empty_database_url, application_name="tests") as ledger, ledger.connection() as connection:
        await check_checkpoints(connection, Keys(adopted="app"))
    for wrong in ("Public", "a-b", "1a", "x" * 64):
        with pytest.raises(ConfigurationError, match="THREADLINE_CHECKPOINT_SCHEMA"):
            Keys(adopted=wrong)


def test_the_example_is_what_langgraphs_docs_show() -> None:
    files = {str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files >= {"langgraph.json", ".env", "my_agent/agent.py", "my_agent/utils/state.py"}
    assert not any("threadline" in Path(PROJECT, name).read_text(encoding="utf-8").lower() for name in files)
