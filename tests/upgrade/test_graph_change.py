"""R2: what a thread needs and its graph no longer has is told by name; what only changed goes on."""

from __future__ import annotations

from contextlib import suppress

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.types import Command

from support.release_graphs import Less, chain, fan, helper, within
from threadline_worker.agents.fingerprint import structure
from threadline_worker.graph_change import gone

AT = {"configurable": {"thread_id": "t"}}
SAID = {"said": []}
TASK = {"messages": [("user", "go")]}


@entrypoint()
def earlier(_given):
    raise ValueError


@entrypoint()
def later(_given):
    return "done"


def compiled(graph, saver):
    return graph.compile(checkpointer=saver) if hasattr(graph, "compile") else graph.copy({"checkpointer": saver})


async def left_by(graph, given) -> InMemorySaver:
    """A thread in which the graph failed or waits."""
    saver = InMemorySaver()
    with suppress(ValueError):
        await compiled(graph, saver).ainvoke(given, AT, durability="sync")
    return saver


CHANGES = [
    pytest.param(chain("a", "fail", "b"), chain("a", "b"), SAID, ["node fail"], id="a failed node"),
    pytest.param(chain("a", "ask", "b"), chain("a", "b"), SAID, ["node ask"], id="a question"),
    pytest.param(within("a", "ask"), within("a"), SAID, ["node ask in part"], id="a question in a subgraph"),
    pytest.param(
        within("p", p=within("ask").compile()),
        within("p", p=within("b").compile()),
        SAID,
        ["node ask in part in p in part"],
        id="two graphs deep",
    ),
    pytest.param(fan("w"), fan("v"), SAID, ["node w"], id="sent tasks"),
    pytest.param(helper("a", "ask"), helper("a"), TASK, ["node ask in tools"], id="a subagent"),
    pytest.param(earlier, later, "x", ["node earlier"], id="an entrypoint"),
]


@pytest.mark.parametrize(("old", "new", "given", "lost"), CHANGES)
async def test_R2_what_is_gone_is_told_by_name(old, new, given, lost) -> None:
    saver = await left_by(old, given)
    before = structure(compiled(old, saver))
    assert await gone(compiled(new, saver), saver, "t", before) == lost
    assert await gone(compiled(old, saver), saver, "t", before) == []


@pytest.mark.parametrize(("old", "new", "given", "lost"), [one for one in CHANGES if one.id != "an entrypoint"])
async def test_R2_nodes_are_missed_although_the_graph_before_is_not_known(old, new, given, lost) -> None:
    """Jobs of 0.1.0 have no fingerprint."""
    saver = await left_by(old, given)
    assert await gone(compiled(new, saver), saver, "t", None) == lost


async def test_R2_langgraph_drops_all_this_without_a_word() -> None:
    """Why we look: should this fail one day, LangGraph has learnt to tell, and the look can go."""
    saver = await left_by(chain("a", "fail", "b"), SAID)
    new = compiled(chain("a", "b"), saver)
    assert (await new.aget_state(AT)).tasks == ()
    assert (await new.ainvoke(None, AT))["said"] == ["a"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (chain("a", "fail", "b"), chain("a", "fail", "c", "b")),
        (chain("a", "fail", "b"), chain("fail", "b")),
        (chain("a", "ask", "b"), chain("a", "ask")),
        (within("a", "ask"), within("b", "ask", "c")),
        (chain("ask", schema=Less), chain("ask")),
    ],
    ids=["added", "one that is done", "one that comes later", "in a subgraph", "a new channel"],
)
async def test_R2_a_change_of_other_places_goes_on(old, new) -> None:
    saver = await left_by(old, SAID)
    assert await gone(compiled(new, saver), saver, "t", structure(compiled(old, saver))) == []


async def test_R2_a_channel_with_a_value_is_missed_an_empty_one_is_not() -> None:
    old, new = chain("a", "fail"), chain("a", "fail", schema=Less)
    saver = await left_by(old, SAID)
    assert await gone(compiled(new, saver), saver, "t", structure(compiled(old, saver))) == ["channel notes"]
    # One that an earlier graph had, and the one before not any more, was lost with other jobs.
    assert await gone(compiled(new, saver), saver, "t", structure(compiled(new, saver))) == []
    saver = await left_by(chain("fail"), SAID)
    assert await gone(compiled(chain("fail", schema=Less), saver), saver, "t", structure(compiled(old, saver))) == []


async def test_R2_an_edge_that_waits_is_missed() -> None:
    old, new = fan("w", joined=["beside", "w"]), fan("w", joined=["first", "w"])
    saver = await left_by(old, SAID)
    lost = await gone(compiled(new, saver), saver, "t", structure(compiled(old, saver)))
    assert lost == ["channel join:beside+w:last"]


async def test_R2_a_subgraph_that_is_none_any_more_is_missed() -> None:
    old, new = within("a", "ask"), chain("first", "part", "last")
    saver = await left_by(old, SAID)
    assert await gone(compiled(new, saver), saver, "t", structure(compiled(old, saver))) == ["the subgraph in part"]


async def test_R2_what_went_on_is_not_held_against_the_thread() -> None:
    """A job that was given up leaves a node behind; the next job begins anew, and is nobody's that lacks it."""
    saver = await left_by(chain("a", "fail", "b"), SAID)
    after = compiled(chain("a", "ask"), saver)
    await after.ainvoke(SAID, AT, durability="sync")
    assert await gone(after, saver, "t", None) == []
    [asked] = (await after.aget_state(AT)).interrupts
    await after.ainvoke(Command(resume={asked.id: "yes"}), AT, durability="sync")
    assert await gone(after, saver, "t", structure(after)) == []


async def test_R2_update_state_as_a_node_that_is_there_is_a_way_out() -> None:
    saver = await left_by(chain("a", "fail", "b"), SAID)
    new = compiled(chain("a", "b"), saver)
    await new.aupdate_state(AT, {"said": ["by hand"]}, as_node="a")
    assert await gone(new, saver, "t", None) == []
    assert (await new.ainvoke(None, AT))["said"] == ["a", "by hand", "b"]
