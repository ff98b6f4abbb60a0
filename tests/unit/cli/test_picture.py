"""The picture fits where it is drawn and shows what is new; the lines fit 80 columns."""

from __future__ import annotations

import io
import itertools
import re

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console, Group

from threadline.cli.output import one_line
from threadline.cli.watch.draw import picture
from threadline.cli.watch.plain import line
from threadline.cli.watch.thread_picture import thread_picture


def drawn(view, width=80, height=24, *, color=None):
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=bool(color), color_system=color, highlight=False
    )
    console.print(Group(*picture(view, now=view.began + 42, width=width, height=height)))
    return console.file.getvalue().rstrip("\n").split("\n")


@pytest.fixture
def busy(story):
    """A job with a long plan, many calls, two subagents at work, files and a long last word."""
    story.start()
    story.tools(todos=[{"content": f"step {i} " + "x" * 100, "status": "pending"} for i in range(30)])
    for i in range(40):
        story.model(story.ai(f"m{i}", "y" * 900, (f"c{i}", "search_corpus", {"query": "資料 " * 60}), tokens=1000))
        story.tools(story.tool(f"c{i}"))
    tasks = [(f"d{i}", "task", {"subagent_type": "researcher", "description": "z" * 200}) for i in range(2)]
    story.model(story.ai("m", "the last word", *tasks))
    for i in range(2):
        story.model(
            story.ai(f"s{i}", "", (f"e{i}", "read_source", {"source": f"s:{i}"}), name="researcher"), [f"tools:{i}"]
        )
    story.tools(files={f"/f{i}.md": "x" * 5000 for i in range(20)})
    return story


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (44, 14), (20, 5), (200, 60)])
def test_it_fits(busy, width, height):
    lines = drawn(busy.view, width, height)
    console = Console(width=width)
    assert len(lines) <= height
    assert max(console.measure(text).maximum for text in lines) <= width


def test_the_newest_is_in_sight(busy):
    text = "\n".join(drawn(busy.view))
    assert "research  running  0:42  on worker-1" in text
    assert "read_source s:1" in text
    assert "the last word" in text
    assert re.search(r"✔ search_corpus ×40 資料", text)
    assert "… 16 more" in text  # files
    assert re.search(r"○ step \d+ x+…\n  … \d\d more\n\nWork", text)
    assert "40.0k tokens in" in text
    assert all(row.endswith("x…") for row in text.splitlines() if "○ step" in row)


def test_a_pick_up_stands_between_the_calls_before_and_after_it(story):
    story.start()
    for key in ("before", "after"):
        story.model(story.ai(key, "", (key, "search", {"query": key})))
        story.tools(story.tool(key))
        if key == "before":
            story.pick_up()
    rows = [text.split()[1] for text in drawn(story.view) if text.startswith("  ↻") or "✔ search" in text]
    assert rows == ["search", "worker-2", "search"]
    assert "  ↻ worker-2 picks up from worker-1 (dead) after 2.0 s" in drawn(story.view)


def test_a_finished_subagent_is_one_line(story):
    story.start()
    story.model(story.ai("m", "", ("d", "task", {"subagent_type": "critic", "description": "look"})))
    story.model(story.ai("s", "", ("c", "read_file", {"file_path": "/r.md"}), name="critic"), ["tools:1"])
    assert any("read_file /r.md" in text for text in drawn(story.view))
    story.tools(story.tool("d", "fine"))
    text = "\n".join(drawn(story.view))
    assert re.search(r"✔ critic look +1 call +2.0 s", text)
    assert "read_file" not in text


def test_parallel_twins_are_seen_at_work_each_with_its_own(story):
    story.start()
    shared = "You are to look closely, and to quote, into part"
    tasks = [
        (key, "task", {"subagent_type": "researcher", "description": f"{shared} {i}: {key}"})
        for i, key in enumerate(("tides", "moons"), start=1)
    ]
    story.model(story.ai("m", "", *tasks))
    for key in ("tides", "moons"):
        story.tell("updates", {"Middleware.before_agent": None}, [f"tools:{key}"])
    for i in range(9):
        for key in ("moons", "tides"):
            name = ("search", "read")[i % 2]
            story.model(story.ai(f"{key}{i}", "", (f"{key}{i}c", name, {"query": f"{key} {i}"})), [f"tools:{key}"])
            story.tools(story.tool(f"{key}{i}c"), ns=[f"tools:{key}"])
    story.piece("w", "writing of the moon", ["tools:moons"])
    rows = drawn(story.view, height=16)
    tides, moons = (next(i for i, row in enumerate(rows) if f"researcher …{key}" in row) for key in ("tides", "moons"))
    assert tides < moons
    assert re.search(r"… \d more +\d\d.0 s$", rows[tides])
    assert "search tides 8" in rows[moons - 1]
    assert "    ▏ writing of the moon" in rows[moons:]


def test_calls_of_one_tool_in_a_row_are_one_line_as_long_as_they_stand_alike(story):
    story.start()
    story.model(story.ai("m", "", *[(f"c{i}", "read", {"path": f"/{i}"}) for i in range(6)]))
    assert any(re.search(r"read ×6 /5, /4, /3, /2, /1, /0 +\d\d.0 s", row) for row in drawn(story.view))
    story.tools(*[story.tool(f"c{i}") for i in range(3)])
    story.tools(story.tool("c3", "no such file", "error"))
    text = "\n".join(drawn(story.view))
    assert "✔ read ×3 /2, /1, /0" in text
    assert "✖ read /3" in text
    assert "Work  6 calls" in text


def test_a_step_that_runs_again_is_there_once(story):
    story.start()
    story.model(story.ai("m1", "", ("a", "search", {"query": "x"})), task="t")
    story.pick_up()
    story.model(story.ai("m2", "", ("b", "search", {"query": "x"})), task="t", rerun=True)
    text = "\n".join(drawn(story.view))
    assert text.count("search x") == 1
    assert "Work  1 call\n" in text


def test_a_file_that_is_being_written_streams_in(story):
    story.start()
    args = '{"file_path": "/r.md", "content": "# Tides\\n\\nThe \\"moon\\" pulls'
    story.piece("m", tool_call_chunks=[{"name": "write_file", "args": args[:40], "id": "c", "index": 0}])
    story.piece("m", tool_call_chunks=[{"name": None, "args": args[40:], "id": None, "index": 0}])
    assert drawn(story.view)[-1] == '▏ write_file … # Tides The "moon" pulls'


def test_a_notice_and_the_end_stand_apart(story):
    story.start()
    lines = picture(story.view, now=story.view.began, width=80, height=24, notice="Redis does not answer")
    assert [text.plain for text in lines][2] == "  ! Redis does not answer"


def test_a_thread_shows_old_jobs_in_a_line_and_the_newest_whole(story):
    story.start()
    story.tell("succeeded", {"result": None})
    views = tuple(msgspec.structs.replace(story.view, job_id=f"j{i}") for i in range(20))
    lines = thread_picture("t-9", views, earlier=3, now=story.view.began, width=80, height=24)
    text = "\n".join(line.plain for line in lines)
    assert text.startswith("Thread t-9  23 jobs\n  … 15 more\n")
    assert text.count("✔ research  succeeded in 0:02 (3 events)") == 7
    assert "job j19" in text
    assert len(lines) <= 24


#: What a model, a tool or whoever reaches Redis may write.
TEXTS = st.text(st.sampled_from("ab \n\x1b[31m\x07\x9b\u202e\u2028資é\u0301👩\u200d"), max_size=30)


@given(
    texts=st.lists(TEXTS, min_size=6, max_size=6),
    steps=st.integers(1, 8),
    width=st.integers(1, 220),
    height=st.integers(1, 60),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_told_fits_and_steers_nothing(new_story, texts, steps, width, height):
    story, pool = new_story(), itertools.cycle([*texts, *texts[3:], texts[0]])

    def text() -> str:
        return next(pool)

    story.start()
    for i in range(steps):
        ns = [[], [f"tools:{text()}"], [f"tools:{i % 3}", text()]][i % 3]
        call = (f"c{i}", ["task", "search"][i % 2], {"description": text(), "query": text()})
        story.model(story.ai(text(), text(), call, name=text()), ns, agent=text(), task=text())
        story.piece(text(), text(), ns, tool_call_chunks=[{"name": text(), "args": text()}])
        story.tools(story.tool(f"c{i - 1}", text()), ns=ns, todos=[{"content": text()}] * i, files={text(): text()})
        if i % 4 == 3:
            story.tell("released", {"worker_id": text(), "code": text(), "message": text()})
            story.tell("resumed", {"worker_id": text(), "from_worker": text()})
        story.tell("gap", {"after": text(), "next": text()})
        story.tell(text() or "x", {text(): text()}, ns)
    story.tell("failed", {"code": text(), "message": text()})
    shown = picture(story.view, now=story.view.began, width=width, height=height, notice=one_line(text()))
    assert len(shown) <= height
    assert all(row.cell_len <= max(width, 20) for row in shown)
    told = [line(note, 0.0) for note in story.notes] + [row.plain for row in shown]
    assert not [row for row in told if re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", row)]


def test_the_end_says_why_and_stops_the_clock(story):
    story.start()
    story.model(story.ai("m", "", ("c", "search", {})))
    story.tell("failed", {"code": "error", "message": "the model is gone"})
    text = "\n".join(drawn(story.view))
    assert "✖ research  failed  0:03" in text
    assert "error: the model is gone" in text
    assert re.search(r"■ search +stopped", text)


def test_colour_is_the_consoles_choice(story):
    story.start()
    assert "\x1b[" in "".join(drawn(story.view, color="truecolor"))
    assert "\x1b[" not in "".join(drawn(story.view))


def test_plain_lines_are_short_and_say_what_happened(busy):
    lines = [line(note, busy.view.began) for note in busy.notes]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "   0:00  queued       research"
    assert lines[1] == "   0:01  started      worker-1"
    assert any(text.startswith("   1:25  calls          read_source s:1") for text in lines)
