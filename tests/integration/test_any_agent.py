"""Graphs that Threadline never saw run through the queue as they are: an application's langgraph.json, unmodified."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.chaos_processes import package_roots
from support.desk import LedgerView
from support.house import house_on
from support.nursery import called
from support.servers import ServerUrls
from threadline import Client, InvalidJob, JobFailed, JobInterrupted

PROJECT = Path(__file__).parents[1] / "support" / "agent_project"
NOTHING = {"said": []}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose file `broken.py` tests may write."""
    return Path(shutil.copytree(PROJECT, tmp_path_factory.mktemp("project") / "app"))


@pytest.fixture(scope="module")
def house(servers: ServerUrls, template: str, project: Path) -> Iterator[dict[str, str]]:
    own = {
        "PYTHONPATH": os.pathsep.join(package_roots()),  # of the application nothing: its langgraph.json says it all
        "THREADLINE_AGENTS": str(project / "langgraph.json"),
        "THREADLINE_MSGPACK_TYPES": "priced:Declared",
    }
    gates = project / "gates"
    gates.mkdir()
    with house_on(servers, template, gates, **own) as env:
        yield env


@pytest.fixture
async def client(house: dict[str, str]) -> AsyncIterator[Client]:
    async with Client(redis_url=house["REDIS_URL"], database_url=house["DATABASE_URL"]) as made:
        yield made


@pytest.fixture
def view(house: dict[str, str]) -> LedgerView:
    return LedgerView(house["DATABASE_URL"])


async def run(client: Client, agent: str, given: Any, **options: Any) -> Any:
    return await (await client.enqueue(agent, given, **options)).result(timeout=30)


async def refused(client: Client, agent: str, given: Any, **options: Any) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await run(client, agent, given, **options)
    return caught.value


async def test_an_authors_own_checkpointer_and_store_are_replaced(client: Client, view: LedgerView) -> None:
    for _turn in range(2):
        result = await run(client, "authored", NOTHING, thread_id="own")
    assert result["said"] == ["FencedStore"] * 2
    assert view.rows("SELECT count(*) AS n FROM checkpoints WHERE thread_id = 'own'")[0]["n"] >= 4
    assert view.rows("SELECT value FROM store WHERE prefix = 'authored'")[0]["value"] == {"n": 1}


async def test_a_deep_agent_runs(client: Client) -> None:
    assert (await run(client, "deep", "hello"))["messages"][-1]["data"]["content"] == "deep down"


async def test_a_jobs_configurable_reaches_the_factory_and_the_nodes(client: Client) -> None:
    job = await client.enqueue("configured", NOTHING, user_id="u", configurable={"node": "red", "deep": {"n": [1]}})
    node, told = (await job.result(timeout=30))["said"]
    assert node == "red"
    ours = {"user_id": "u", "job_id": job.job_id, "thread_id": job.thread_id}
    assert told == {"node": "red", "deep": {"n": [1]}, "from_project": "yes", **ours}
    assert (await run(client, "configured", NOTHING))["said"][0] == "unnamed"


async def test_a_producer_cannot_smuggle_another_threads_id_in(client: Client, view: LedgerView) -> None:
    await run(client, "configured", NOTHING, thread_id="theirs", user_id="them")
    before = view.rows("SELECT * FROM checkpoints WHERE thread_id = 'theirs' ORDER BY checkpoint_id")
    smuggled = {
        "thread_id": "theirs",
        "user_id": "them",
        "job_id": "j",
        "checkpoint_ns": "x",
        "checkpoint_id": before[-1]["checkpoint_id"],
        "checkpoint_map": {"": before[-1]["checkpoint_id"]},
        "__pregel_checkpointer": None,
        "__pregel_resuming": True,
        "langgraph_auth_user_id": "them",
        "webhook_url": "http://127.0.0.1:9/",
    }
    job = await client.enqueue("configured", NOTHING, thread_id="ours", user_id="us", configurable=smuggled)
    _node, told = (await job.result(timeout=30))["said"]
    assert (told["thread_id"], told["user_id"], told["job_id"]) == ("ours", "us", job.job_id)
    assert told.keys() == {"thread_id", "user_id", "job_id", "from_project", "webhook_url"}
    assert view.rows("SELECT * FROM checkpoints WHERE thread_id = 'theirs' ORDER BY checkpoint_id") == before
    assert {row["checkpoint_ns"] for row in view.rows("SELECT * FROM checkpoints WHERE thread_id = 'ours'")} == {""}
    assert view.rows("SELECT * FROM webhooks") == []
    assert (await job.status()).webhook is None


async def test_configurable_and_context_are_checked_before_anything_is_stored(client: Client) -> None:
    for wrong in ({"configurable": [1]}, {"context": "x"}, {"context": {"a": float("nan")}}, {"context": {"a": b"x"}}):
        with pytest.raises(InvalidJob, match=next(iter(wrong))):
            await client.enqueue("configured", NOTHING, **wrong)
    with pytest.raises(InvalidJob, match="64 KiB"):
        await client.enqueue("configured", NOTHING, configurable={"a": "x" * 70_000})


async def test_an_answer_goes_on_with_the_asking_jobs_configurable(client: Client) -> None:
    job = await client.enqueue("asking", NOTHING, thread_id="asks", configurable={"tone": "kind\0"})
    with pytest.raises(JobInterrupted):
        await job.result(timeout=30)
    assert (await (await client.resume("asks", "yes")).result(timeout=30))["said"] == ["yes", "kind\0"]


async def test_a_context_manager_is_open_for_the_run_and_told_what_it_is_for(client: Client, house) -> None:
    job = await client.enqueue("served", NOTHING, thread_id="s", user_id="u", context={"tone": "loud"})
    assert (await job.result(timeout=30))["said"] == ["loud"]
    assert (await client.state("s", user_id="u"))["values"] == {"said": ["loud"]}
    effects = (Path(house["TEST_GATES"]) / "effects").read_text().splitlines()
    assert effects[:2] == ["open threads.create_run u loud", "close threads.create_run u loud"]
    assert effects[2:] == ["open threads.read u none", "close threads.read u none"]


async def test_a_context_is_built_by_the_graphs_schema(client: Client, view: LedgerView) -> None:
    given = {"sizes": ["1", 2], "user_id": "somebody else"}
    told = (await run(client, "contextual", NOTHING, user_id="u", context=given))["said"]
    assert told == ["Context(user_id='u', tone='calm', sizes=[1, 2])"]
    error = await refused(client, "contextual", NOTHING, thread_id="ctx", context={"sizes": ["many"]})
    assert (error.code, "context.sizes.0" in error.message) == ("invalid_input", True)
    assert "no field tune" in (await refused(client, "contextual", NOTHING, context={"tune": 1})).message
    assert view.rows("SELECT * FROM checkpoints WHERE thread_id = 'ctx'") == []


async def test_an_input_that_does_not_fit_writes_nothing_and_names_the_field(client: Client, view: LedgerView) -> None:
    assert (await run(client, "strict", {"topic": "ab", "count": 2}))["answer"] == "abab"
    error = await refused(client, "strict", {"topic": "ab"}, thread_id="wrong")
    assert (error.code, error.message) == ("invalid_input", "input.count: Field required")
    for table in ("checkpoints", "checkpoint_writes", "checkpoint_blobs"):
        assert view.rows(f"SELECT * FROM {table} WHERE thread_id = 'wrong'") == []
    assert (await run(client, "strict", {"topic": "a", "count": 1}, thread_id="wrong"))["answer"] == "a"


async def test_types_of_schemas_and_of_the_setting_come_back_as_they_were(client: Client) -> None:
    await run(client, "goods", {"seen": ["declared"]}, thread_id="g")
    seen = (await run(client, "goods", {"seen": ["again"]}, thread_id="g"))["seen"]
    assert seen[-1] == "Price(cents=5) Declared(name='a')"


async def test_an_undeclared_type_fails_the_job_before_it_is_written(client: Client, view: LedgerView) -> None:
    error = await refused(client, "goods", {"seen": ["undeclared"]}, thread_id="u")
    assert "priced.Undeclared" in error.message
    assert "set THREADLINE_MSGPACK_TYPES=priced:Undeclared" in error.message
    for table in ("checkpoint_blobs", "checkpoint_writes"):
        assert view.rows(f"SELECT * FROM {table} WHERE thread_id = 'u' AND channel = 'anything'") == []


async def test_a_broken_graph_fails_its_own_jobs_and_is_mended_without_a_restart(client: Client, project: Path) -> None:
    file = project / "broken.py"
    for text, why in (
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'; install it"),
        ("def graph(:", "SyntaxError"),
        ("import sys; sys.exit(3)  #", "SystemExit: 3"),
        ("def graph(config, colour): ...", "wants colour"),
    ):
        file.write_text(text)
        error = await refused(client, "broken", NOTHING)
        assert error.code == "agent_unavailable"
        assert why in error.message
    assert (await run(client, "configured", NOTHING))["said"][0] == "unnamed"
    file.write_text("import ways\n\ngraph = ways.contextual  # mended")
    assert len((await run(client, "broken", NOTHING))["said"]) == 1


def threadline(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return called(arguments, env)


async def test_agents_are_listed_with_their_input_and_the_doctor_loads_each(house, project: Path) -> None:
    (project / "broken.py").write_text("import nothing_of_that_name")
    asked = (["agents", "--json"], ["doctor"])
    listed, looked = await asyncio.gather(*(asyncio.to_thread(threadline, house, *words) for words in asked))
    found = {agent["name"]: agent for agent in json.loads(listed.stdout)}
    assert found["strict"]["input_schema"]["required"] == ["topic", "count"]
    assert len(found["strict"]["fingerprint"]) == 16
    assert found["broken"]["input_schema"] is None
    assert "nothing_of_that_name" in found["broken"]["error"]
    assert "agent strict" in looked.stdout
    assert "nothing_of_that_name" in looked.stdout
