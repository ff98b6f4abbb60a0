"""A graph's fingerprint is the same in every process, and another one wherever a thread that goes on would notice."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from support.release_graphs import Less, chain, fan, helper, within
from threadline_worker.agents.fingerprint import fingerprint, structure
from threadline_worker.agents.subgraphs import subgraphs

TESTS = Path(__file__).parents[1]
PRINT = """
from support.release_graphs import helper, original, within
from threadline_worker.agents.fingerprint import fingerprint, structure
for graph in (original, within("a", "ask"), helper("a", "ask")):
    print(fingerprint(structure(graph.compile())))
"""


def word(graph: StateGraph[Any], **compiling: Any) -> str:
    return fingerprint(structure(graph.compile(**compiling)))


def state(**hints: Any) -> Any:
    return TypedDict("State", hints)  # type: ignore[operator]  # made of its fields


def nothing(_state: Any) -> dict[str, Any]:
    return {}


def one(schema: Any, *, node: Callable[..., Any] = nothing, **schemas: Any) -> StateGraph[Any]:
    graph = StateGraph(schema, **schemas)
    graph.add_node("a", node)
    graph.add_edge(START, "a")
    return graph


def test_all_processes_give_a_graph_the_same_fingerprint() -> None:
    ran = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{TESTS}:{':'.join(sys.path)}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=60)[0].split() for process in ran)
    assert len(set(first)) == 3
    assert first == second


LISTS = Annotated[list[str], operator.add]
SAME = [
    (chain("a", "ask"), chain("a", "ask")),
    (one(state(x=str)), one(state(x=str), node=lambda _state: {"x": "another"})),
    (one(state(x=LISTS)), one(state(x=Annotated[list[str], operator.add]))),
]
OTHER = {
    "a node's name": (chain("a", "b"), chain("a", "c")),
    "the order": (chain("a", "b"), chain("b", "a")),
    "a channel": (chain("a"), chain("a", schema=Less)),
    "a channel's type": (one(state(x=str)), one(state(x=int))),
    "a reducer": (one(state(x=LISTS)), one(state(x=Annotated[list[str], operator.iadd]))),
    "a channel's kind": (one(state(x=LISTS)), one(state(x=list[str]))),
    "the input": (one(state(x=str)), one(state(x=str), input_schema=state(y=str))),
    "the context": (one(state(x=str)), one(state(x=str), context_schema=state(user_id=str))),
    "where it may go": (fan("v"), fan("w")),
    "whom it waits for": (fan("w", joined=["first", "w"]), fan("w", joined=["beside", "w"])),
    "a subgraph": (within("a"), within("a", "b")),
    "a subagent": (helper("a"), helper("a", "b")),
}


@pytest.mark.parametrize(("one_", "other"), SAME)
def test_what_no_thread_notices_is_no_part_of_it(one_, other) -> None:
    assert word(one_) == word(other)


@pytest.mark.parametrize("what", OTHER)
def test_what_a_thread_would_notice_is_part_of_it(what) -> None:
    before, after = OTHER[what]
    assert word(before) != word(after)


def test_where_it_stops_for_people_is_part_of_it() -> None:
    assert word(chain("a", "b"), interrupt_before=["b"]) != word(chain("a", "b"))


class Unready:
    """As a web framework's settings and requests are outside of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} here")


unready = Unready()


def test_what_a_tool_has_around_it_is_looked_at_and_not_touched() -> None:
    many = dict.fromkeys(range(1_000), unready)
    inner = chain("a").compile().with_config(tags=["t"])

    @tool
    def delegate(what: str) -> str:
        """Ask somebody."""
        return f"{unready} {many[0]} {inner.invoke({'said': [what]})}"

    node = one(MessagesState, node=ToolNode([delegate])).compile().nodes["a"]
    assert [list(graph.nodes) for graph in subgraphs(node).values()] == [["__start__", "a"]]


def test_a_graph_that_is_within_itself_has_one() -> None:
    agent = helper("a")
    compiled = agent.compile()
    compiled.nodes["tools"].subgraphs = [compiled]
    assert len(fingerprint(structure(compiled))) == 16
