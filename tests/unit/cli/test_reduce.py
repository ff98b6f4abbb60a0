"""What a watcher has seen: each thing once, whatever is told twice and whatever shape it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from threadline.cli.watch.model import CallState

DATA = Path(__file__).parent / "data"


def test_real_deepagents_updates_make_plan_tree_files_and_tokens(story):
    story.start()
    for line in (DATA / "deepagents_updates.ndjson").read_text().splitlines():
        chunk = json.loads(line)
        story.tell(chunk["type"], chunk["data"], chunk["ns"])
    view = story.view
    assert [todo.status for todo in view.todos] == ["completed", "completed"]
    assert view.files == {"/report.md": 4}
    assert {call.state for call in view.calls.values()} == {CallState.DONE}
    # Both subagents ran at once and the second spoke first: the agent's name says whose calls they are.
    by_agent = {view.calls[call].agent: scope for scope, call in view.links.items()}
    assert view.calls["s-alph"].scope == by_agent["researcher"]
    assert view.calls["s-beta"].scope == by_agent["critic"]
    assert view.used == (900, 90)
    assert view.said[""] == "All done."


def test_a_tool_step_that_runs_again_is_told_once(story):
    story.start()
    story.model(story.ai("m1", "look", ("c1", "search", {"query": "x"}), tokens=10))
    story.pick_up()
    story.model(story.ai("m1", "look", ("c1", "search", {"query": "x"}), tokens=10))
    assert len(story.tools(story.tool("c1"))) == 1
    assert story.tools(story.tool("c1")) == []
    assert len(story.view.calls) == 1
    assert sum(note.label == "calls" for note in story.notes) == 1
    assert story.view.used == (10, 1)
    assert [note.text for note in story.notes if note.label == "says"] == ["look"]
    assert sum(note.label == "done" for note in story.notes) == 1


def test_a_model_step_that_runs_again_leaves_its_first_calls_behind(story):
    story.start()
    story.model(story.ai("m1", "", ("lost", "search", {"query": "x"})))
    story.pick_up()
    story.model(story.ai("m2", "", ("kept", "search", {"query": "x"})))
    story.tools(story.tool("kept"))
    assert story.view.calls["lost"].state is CallState.DROPPED
    assert story.view.calls["kept"].state is CallState.DONE


def test_what_a_rerun_task_asked_for_before_is_dropped_at_once_and_nothing_else(story):
    story.start()
    story.model(story.ai("m1", "", ("first", "search", {})), task="t1")
    story.model(story.ai("m0", "", ("other", "search", {})), task="t0")
    story.model(story.ai("m2", "", ("again", "search", {})), task="t1", rerun=True)
    states = {key: str(call.state) for key, call in story.view.calls.items()}
    assert states == {"first": "dropped", "other": "pending", "again": "pending"}
    assert story.view.asked == 2


def test_words_that_a_dead_worker_was_saying_are_not_told_before_they_are_said_again(story):
    story.start()
    story.piece("m1", "The moon")
    story.pick_up()
    assert story.view.partial == {}
    story.piece("m2", "The moon pulls", task="t", rerun=True)
    story.model(story.ai("m2", "The moon pulls"))
    assert [note.text for note in story.notes if note.label == "says"] == ["The moon pulls"]


def test_answers_that_lay_in_a_gap_leave_no_call_open(story):
    story.start()
    story.model(story.ai("m1", "", ("lost", "search", {})))
    story.tell("gap", {"after": "1-2", "next": "1-9"})
    story.model(story.ai("m2", "", ("next", "search", {})))
    assert {key: str(call.state) for key, call in story.view.calls.items()} == {"lost": "done", "next": "pending"}


def test_a_retry_goes_on_with_what_the_end_cut_off(story):
    story.start()
    story.model(story.ai("m1", "", ("c", "search", {})))
    story.tell("failed", {"code": "error", "message": "boom"})
    assert story.view.calls["c"].state is CallState.STOPPED
    story.tell("retried", {"epoch": 3})
    assert (story.view.state, story.view.error, story.view.ended) == ("queued", "", None)
    story.tell("resumed", {"worker_id": "worker-2"})
    story.tools(story.tool("c"))
    assert story.view.calls["c"].state is CallState.DONE


def test_parallel_calls_of_one_epoch_are_never_dropped(story):
    story.start()
    story.model(story.ai("m1", "", ("a", "search", {}), ("b", "search", {})))
    story.model(story.ai("m2", "thinking aloud"))
    assert {call.state for call in story.view.calls.values()} == {CallState.PENDING}


def test_a_subagent_is_known_by_its_name_from_its_first_word_on(story):
    story.start()
    tasks = [(key, "task", {"subagent_type": key}) for key in ("researcher", "critic")]
    story.model(story.ai("m", "", *tasks))
    story.model(story.ai("c", "hm", name="critic"), ["tools:x"])
    assert story.view.links == {"tools:x": "critic"}


def two_twins(story):
    story.start()
    twins = [(f"d{i}", "task", {"subagent_type": "researcher", "description": f"part {i}"}) for i in (1, 2)]
    story.model(story.ai("m", "", *twins))


def test_twins_are_told_apart_by_the_order_in_which_they_start(story):
    two_twins(story)
    for ns in ("tools:one", "tools:two"):  # the first event of each, before it has a name
        story.tell("updates", {"Middleware.before_agent": None}, [ns])
    story.model(story.ai("x2", "", ("s2", "search", {}), name="researcher"), ["tools:two"])
    assert story.view.links == {"tools:one": "d1", "tools:two": "d2"}


def test_twins_are_known_from_their_tasks_where_the_worker_tells(story):
    two_twins(story)
    for task, call in (("two", "d2"), ("one", "d1")):
        data = {"id": task, "name": "tools", "input": {"tool_call": {"id": call}}}
        story.tell("tasks", data)
        story.model(story.ai(f"x{task}", "", name="researcher"), [f"tools:{task}"], agent="researcher")
    assert story.view.links == {"tools:one": "d1", "tools:two": "d2"}


def test_twins_are_known_from_the_start_of_their_tools(story):
    two_twins(story)
    story.tell("tools", {"event": "tool-started", "tool_call_id": "d2"}, task="two")
    story.tell("tools", {"event": "tool-started", "tool_call_id": "d1"}, task="one")
    story.tell("updates", {"Middleware.before_agent": None}, ["tools:two"], agent="researcher")
    assert story.view.links == {"tools:two": "d2"}
    assert story.view.others == {}


def test_a_guess_gives_way_to_a_name(story):
    story.start()
    story.model(story.ai("m", "", *[(key, "task", {"subagent_type": key}) for key in ("researcher", "critic")]))
    story.tell("updates", {"Middleware.before_agent": None}, ["tools:x"])
    assert story.view.links == {"tools:x": "researcher"}
    story.tell("updates", {"model": None}, ["tools:x"], agent="critic")
    assert story.view.links == {"tools:x": "critic"}
    story.tell("updates", {"model": None}, ["tools:y"], agent="researcher")
    assert story.view.links == {"tools:x": "critic", "tools:y": "researcher"}


def test_twins_are_told_apart_by_their_answers(story):
    story.start()
    same = {"subagent_type": "researcher"}
    story.model(story.ai("m", "", ("d1", "task", {**same, "description": "one"}), ("d2", "task", same)))
    # The second twin speaks first and is taken for the first.
    story.model(story.ai("x2", "answer two", name="researcher"), ["tools:two"])
    assert story.view.links["tools:two"] == "d1"
    story.model(story.ai("x1", "answer one", name="researcher"), ["tools:one"])
    story.tools(story.tool("d2", "answer two"))
    assert story.view.links == {"tools:two": "d2", "tools:one": "d1"}


def test_a_pick_up_names_both_workers_and_the_pause(story):
    story.start()
    story.model(story.ai("m1", "hello"))
    story.pick_up()
    assert [pickup.text for pickup in story.view.pickups] == [
        "worker-1",
        "worker-1 is dead",
        "worker-2 picks up from worker-1 (dead) after 2.0 s",
    ]
    assert (story.view.state, story.view.worker, story.view.epoch) == ("running", "worker-2", 3)


def test_a_failed_tool_says_why(story):
    story.start()
    story.model(story.ai("m1", "", ("c", "fetch_url", {"url": "http://x"})))
    (note,) = story.tools(story.tool("c", "no such host", "error"))
    assert (note.label, note.text) == ("failed", "fetch_url 1.0 s: no such host")
    assert story.view.calls["c"].state is CallState.FAILED


def test_files_of_the_state_and_of_other_backends(story):
    story.start()
    story.model(story.ai("m", "", ("w", "write_file", {"file_path": "/memories/a.md"})))
    story.tools(story.tool("w"))
    story.tools(files={"/r.md": {"content": ["one", "two"]}, "/gone.md": {"content": "x"}})
    story.tools(files={"/gone.md": None})
    assert story.view.files == {"/memories/a.md": None, "/r.md": 8}
    assert story.tools(files={"/r.md": {"content": ["one", "two"]}}) == []


def test_streamed_pieces_grow_and_the_whole_message_is_said_once(story):
    story.start()
    for text in ("Good ", "morning"):
        story.piece("m", text)
    assert story.view.partial[""].text == "Good morning"
    story.model(story.ai("m", "Good morning"))
    story.piece("m", "late")
    assert story.view.partial == {}
    assert [note.text for note in story.notes if note.label == "says"] == ["Good morning"]


def test_pieces_without_an_update_are_said_when_the_next_message_or_the_end_comes(story):
    story.start()
    for key in ("m1", "m2"):
        story.piece(key, f"text of {key}")
    story.tell("succeeded", {"result": None})
    assert [note.text for note in story.notes if note.label == "says"] == ["text of m1", "text of m2"]


def test_a_graph_node_that_is_a_subgraph_has_its_own_branch(story):
    story.start()
    story.model(story.ai("a", "", ("c", "search", {})), ["team:123"])
    assert story.view.calls["ns:team:123"].name == "team"
    story.tell("updates", {"team": {"messages": []}})
    assert story.view.calls["ns:team:123"].state is CallState.DONE


def test_gaps_are_counted_and_told(story):
    story.start()
    (note,) = story.tell("gap", {"after": "1-1", "next": "1-9"})
    assert note.text == "events between 1-1 and 1-9 are missing"
    assert story.view.gaps == 1


def test_an_unknown_type_is_a_line(story):
    story.start()
    (note,) = story.tell("custom", {"progress": 0.5})
    assert (note.label, note.text) == ("custom", '{"progress":0.5}')
    assert story.view.others == {"custom": 1}


def test_what_an_agent_writes_cannot_steer_the_terminal(story):
    story.start()
    story.model(story.ai("m\x1b", "\x1b]0;owned\x07text\x9b31m", ("c", "x\x1b[2J", {"query": "\x1b[H"})))
    told = "".join(note.text + note.label for note in story.notes) + repr(story.view.said)
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "\x9b" not in told


SHAPES = [
    None,
    [],
    {},
    "text",
    7,
    {"truncated": True, "bytes": 2_000_000},
    {"model": None},
    {"model": "text"},
    {"model": [None, {"messages": 3}]},
    {"model": {"messages": None, "todos": "x", "files": []}},
    {"model": {"messages": {"repr": "Overwrite(…)"}}},
    {"model": {"messages": [None, {"type": "ai"}, {"type": "ai", "data": None}]}},
    {"model": {"messages": [{"type": "ai", "data": {"content": [None, {"text": 3}, "a"], "tool_calls": [None, {}]}}]}},
    {"model": {"messages": [{"type": "ai", "data": {"tool_calls": [{"id": 5, "name": None, "args": "x"}]}}]}},
    {"model": {"messages": [{"type": "ai", "data": {"usage_metadata": {"input_tokens": None}}}]}},
    {"model": {"messages": [{"type": "tool", "data": {"tool_call_id": None}}], "todos": [None, {}], "files": {"a": 3}}},
    {"__interrupt__": [{"id": "i", "value": "ok?"}]},
    [{"type": "AIMessageChunk", "data": {}}, {}],
    {"worker_id": 3, "interrupts": "x", "code": 4},
    {"interrupts": [{"id": "a", "value": {"q": "go?"}}, "x"]},
]


@pytest.mark.parametrize("data", SHAPES, ids=repr)
@pytest.mark.parametrize("kind", ["updates", "values", "messages", "interrupted", "failed", "resumed", "gap", "new"])
def test_no_shape_breaks_it(story, kind, data):
    story.tell(kind, data)
    story.tell(kind, data, ["tools:x"], at="not a moment")
