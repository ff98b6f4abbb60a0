"""The picture fits where it is drawn and shows what is new; the lines fit 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from threadline.cli.watch.draw import picture
from threadline.cli.watch.plain import line


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
    assert "earlier ones not shown" in text
    assert "40.0k in" in text
    assert all(row.endswith("x…") for row in text.splitlines() if "○ step" in row)


def test_a_pick_up_stands_between_the_calls_before_and_after_it(story):
    story.start()
    for key in ("before", "after"):
        story.model(story.ai(key, "", (key, "search", {"query": key})))
        story.tools(story.tool(key))
        if key == "before":
            story.pick_up()
    rows = [text.split()[1] for text in drawn(story.view) if text.startswith("  ↻") or "✔ search" in text]
    assert rows == ["search", "worker-1", "worker-2", "search"]


def test_a_finished_subagent_is_one_line(story):
    story.start()
    story.model(story.ai("m", "", ("d", "task", {"subagent_type": "critic", "description": "look"})))
    story.model(story.ai("s", "", ("c", "read_file", {"file_path": "/r.md"}), name="critic"), ["tools:1"])
    assert any("read_file /r.md" in text for text in drawn(story.view))
    story.tools(story.tool("d", "fine"))
    text = "\n".join(drawn(story.view))
    assert "✔ critic look  (1 call)" in text
    assert "read_file" not in text


def test_the_end_says_why_and_stops_the_clock(story):
    story.start()
    story.model(story.ai("m", "", ("c", "search", {})))
    story.tell("failed", {"code": "error", "message": "the model is gone"})
    text = "\n".join(drawn(story.view))
    assert "✖ research  failed  0:03" in text
    assert "error: the model is gone" in text
    assert "not kept" in text


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
