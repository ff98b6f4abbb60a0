"""Agents by name: each is loaded once, and what cannot be loaded says why and harms nobody else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from threadline.errors import ConfigurationError
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.registry import Agents, UnknownAgentError, parse_agents


def write(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    return f"{name}={folder / name}.py:graph"


def test_the_two_ways_to_name_agents(tmp_path) -> None:
    assert parse_agents("a=m:x, b=m.n:y.z", tmp_path) == {"a": "m:x", "b": "m.n:y.z"}
    assert parse_agents("  ", tmp_path) == {}
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"a": "./a.py:g", "b": {"path": "mod.b:g"}}}))
    assert parse_agents("langgraph.json", tmp_path) == {"a": f"{tmp_path}/a.py:g", "b": "mod.b:g"}


@pytest.mark.parametrize("text", ["a", "a=m", "=m:x", "missing.json"])
def test_a_value_that_cannot_be_read_names_the_variable(tmp_path, text) -> None:
    with pytest.raises(ConfigurationError, match="THREADLINE_AGENTS"):
        parse_agents(text, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"graphs": {"a": 7}}', '{"other": 1}'])
def test_a_broken_langgraph_json_names_the_file(tmp_path, text) -> None:
    (tmp_path / "langgraph.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"langgraph\.json"):
        parse_agents("langgraph.json", tmp_path)


GRAPH = """
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
        "graph = made",
        "def graph(config): return made()",
        "async def graph(): return made()",
    ],
)
async def test_a_graph_may_be_given_in_any_of_langgraphs_ways(tmp_path, line) -> None:
    agents = Agents(write(tmp_path, "a", GRAPH + line), {})
    agent = await agents.load("a")
    assert agent.text_input is False
    assert agent.input_schema()["properties"].keys() == {"x"}


async def test_an_agent_is_loaded_once_also_by_many_at_once(tmp_path) -> None:
    counted = tmp_path / "loads"
    agents = Agents(
        write(tmp_path, "a", GRAPH + f"graph = made()\nwith open({str(counted)!r}, 'a') as f: f.write('x')\n"), {}
    )
    loaded = await asyncio.gather(*(agents.load("a") for _ in range(10)))
    assert len({id(agent) for agent in loaded}) == 1
    assert counted.read_text() == "x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import not_there", "ModuleNotFoundError"),
        ("graph = 7", "is no graph"),
        ("x = 1", "AttributeError"),
        ("def graph(", "SyntaxError"),
        ("raise SystemExit(2)", "SystemExit"),
    ],
)
async def test_a_broken_agent_says_why_and_is_tried_again(tmp_path, text, why) -> None:
    agents = Agents(write(tmp_path, "broken", text), {})
    with pytest.raises(AgentConfigError, match=why):
        await agents.load("broken")
    write(tmp_path, "broken", GRAPH + "graph = made()  # mended, and of another length")
    assert (await agents.load("broken")).name == "broken"


async def test_an_unknown_agent_names_those_that_are_known() -> None:
    with pytest.raises(UnknownAgentError, match="research, a; 'b' is not configured"):
        await Agents("a=m:x", {}).load("b")
