"""Agents by name: each is loaded once, and what cannot be loaded says why and harms nobody else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from threadline_worker.agents.agent import Agent
from threadline_worker.agents.errors import AgentConfigError, FactoryError
from threadline_worker.agents.order import Order
from threadline_worker.agents.registry import Agents, UnknownAgentError


async def opened(agents: Agents, name: str, order: Order | None = None) -> Agent:
    async with agents.opening(name, order) as opening:
        return await opening.ready


def write(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    return f"{name}={folder / name}.py:graph"


GRAPH = """
import asyncio
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime
from langgraph.graph import START, StateGraph
from typing import TypedDict
class S(TypedDict):
    x: int
def made():
    graph = StateGraph(S)
    graph.add_node("n", lambda s: s)
    graph.add_edge(START, "n")
    return graph
"""


@pytest.mark.parametrize(
    "line",
    [
        "graph = made()",
        "graph = made().compile()",
        "graph = made().compile().with_config(recursion_limit=7)",
        "graph = made",
        "async def graph(): return made()",
        "def graph(config): return made()",
        "def graph(anything): return made()",
        "async def graph(config: 'RunnableConfig', *, more=1): return made()",
        "def graph(runtime): return made().compile()",
        "def graph(c: RunnableConfig, r: ServerRuntime): assert c['configurable'] == {} and r.store; return made()",
        "async def graph(context: ServerRuntime[S]): return made()",
        "@contextmanager\ndef graph(): yield made()",
        "@asynccontextmanager\nasync def graph(config: RunnableConfig | None = None): yield made().compile()",
        "async def graph(): yield made()",
        "def graph(runtime): yield made()",
        "class Maker:\n    def __call__(self, config: RunnableConfig): return made()\ngraph = Maker()",
        "graph = partial(lambda times, config: made(), 1)",
        "class Home:\n    graph = staticmethod(made)\ngraph = Home.graph",
    ],
)
async def test_a_graph_may_be_given_in_any_of_langgraphs_ways(tmp_path, line) -> None:
    agents = Agents(write(tmp_path, "a", GRAPH + line), {})
    agent = await opened(agents, "a")
    assert agent.text_input is False
    assert agent.input_schema()["properties"].keys() == {"x"}


LIVES = """
@asynccontextmanager
async def graph(config: RunnableConfig, runtime: ServerRuntime[S]):
    task = asyncio.current_task()
    LIFE.append(f"open {config['configurable']['n']} {runtime.access_context}")
    try:
        yield made()
    finally:
        LIFE.append(f"close {config['configurable']['n']} {asyncio.current_task() is task}")
LIFE = []
"""


async def test_a_graph_of_its_own_for_each_run_closed_in_the_task_that_opened_it(tmp_path) -> None:
    agents = Agents(write(tmp_path, "lives", GRAPH + LIVES), {})
    async with (
        agents.opening("lives", Order("threads.create_run", {"n": 1})) as one,
        agents.opening("lives", Order("threads.read", {"n": 2})) as two,
    ):
        first, second = await one.ready, await two.ready
        assert first.graph is not second.graph
    life = next(module for name, module in sys.modules.items() if name.endswith("lives")).LIFE
    assert life == ["open 1 threads.create_run", "open 2 threads.read", "close 2 True", "close 1 True"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def graph(config): raise ConnectionError('away')", "ConnectionError: away"),
        ("async def graph(config): raise SystemExit(3)", "SystemExit: 3"),
        ("def graph(config): return 7", "gives a int, which is no graph"),
    ],
)
async def test_a_factory_that_fails_fails_its_run_alone_and_is_mended_without_a_restart(tmp_path, text, why) -> None:
    agents = Agents(write(tmp_path, "torn", GRAPH + text), {})
    for _again in range(2):
        with pytest.raises(AgentConfigError, match=why) as caught:
            await opened(agents, "torn")
        assert isinstance(caught.value, FactoryError) == ("gives" not in why)
    write(tmp_path, "torn", GRAPH + "def graph(config): return made()  # mended, and of another length")
    assert (await opened(agents, "torn")).name == "torn"


async def test_an_opening_that_nobody_waits_for_any_more_ends(tmp_path) -> None:
    agents = Agents(write(tmp_path, "slow", GRAPH + "async def graph(config): await asyncio.Event().wait()"), {})
    async with agents.opening("slow") as opening:
        await asyncio.sleep(0)
    assert opening.ready.cancelled()


async def test_a_module_has_the_name_that_it_has_in_its_own_project(tmp_path) -> None:
    (package := tmp_path / "src" / "parcel" / "inner").mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (tmp_path / "pyproject.toml").touch()
    (package / "where.py").write_text("VALUE = 1")
    (package / "graphs.py").write_text(GRAPH + "from .where import VALUE\ngraph = made()")
    (tmp_path / "langgraph.json").write_text(
        '{"graphs": {"g": "./src/parcel/inner/graphs.py:graph"}, "dependencies": ["."]}'
    )
    agents = Agents("langgraph.json", {}, tmp_path)
    assert types_in(await opened(agents, "g")) == {"parcel.inner.graphs"}


async def test_a_file_imports_its_neighbours_wherever_it_lies(tmp_path) -> None:
    folder = tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    (folder / "neighbour_of_a_graph.py").write_text(GRAPH)
    source = write(folder, "graph_with_a_neighbour", "from neighbour_of_a_graph import made\ngraph = made()")
    assert (await opened(Agents(source, {}, tmp_path), "graph_with_a_neighbour")).graph


async def test_a_module_whose_name_is_taken_has_another_that_is_the_same_everywhere(tmp_path) -> None:
    names = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "json.py").write_text(GRAPH + "graph = made()")
        (tmp_path / place / "langgraph.json").write_text('{"graphs": {"g": "json.py:graph"}, "dependencies": ["."]}')
        names.append(types_in(await opened(Agents("langgraph.json", {}, tmp_path / place), "g")))
        del sys.modules[next(iter(names[-1]))]
    assert names[0] == names[1] != {"json"}


def types_in(agent: Agent) -> set[str]:
    return {agent.graph.builder.state_schema.__module__}


async def test_an_agent_is_loaded_once_also_by_many_at_once(tmp_path) -> None:
    counted = tmp_path / "loads"
    agents = Agents(
        write(tmp_path, "a", GRAPH + f"graph = made()\nwith open({str(counted)!r}, 'a') as f: f.write('x')\n"), {}
    )
    loaded = await asyncio.gather(*(opened(agents, "a") for _ in range(10)))
    assert len({id(agent) for agent in loaded}) == 1
    assert counted.read_text() == "x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'; install it where this worker runs"),
        ("graph = 7", "is no graph"),
        ("x = 1", "AttributeError"),
        ("def graph(", "SyntaxError"),
        ("raise SystemExit(2)", "SystemExit"),
        ("def graph(config, what): return 7", "wants what"),
        ("from contextlib import nullcontext\ngraph = nullcontext(7)", "a nullcontext is no graph"),
        ("def graph(): raise ValueError('torn')", "ValueError: torn"),
    ],
)
async def test_a_broken_agent_says_why_and_is_tried_again(tmp_path, text, why) -> None:
    agents = Agents(write(tmp_path, "broken", text), {})
    with pytest.raises(AgentConfigError, match=why):
        await opened(agents, "broken")
    write(tmp_path, "broken", GRAPH + "graph = made()  # mended, and of another length")
    assert (await opened(agents, "broken")).name == "broken"


async def test_a_graph_that_is_not_python_says_so(tmp_path) -> None:
    (tmp_path / "a.ts").touch()
    for source, why in ((f"{tmp_path}/a.ts", "in Python"), (f"{tmp_path}/gone.py", "there is no Python file")):
        with pytest.raises(AgentConfigError, match=why):
            await opened(Agents(f"a={source}:graph", {}), "a")


def test_declared_types_that_are_not_there_are_told() -> None:
    agents = Agents("", {"THREADLINE_MSGPACK_TYPES": "decimal:Decimal,decimal:Dezimal,not_there:X"})
    assert agents.missing_types() == ["decimal:Dezimal", "not_there:X"]


async def test_an_unknown_agent_names_those_that_are_known() -> None:
    with pytest.raises(UnknownAgentError, match="research, a; 'b' is not configured"):
        await opened(Agents("a=m:x", {}), "b")
