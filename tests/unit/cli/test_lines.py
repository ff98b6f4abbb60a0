"""Lines for pipes and programs: nothing in them steers a terminal, and none is wider than it may be."""

from __future__ import annotations

import sys

import pytest

from threadline.cli.output import columns, cut
from threadline.cli.watch.json_lines import JsonLines
from threadline.contract.events import Event, decode_event, encode_event

EVENT = Event(
    job_id="j", thread_id="t", type="custom", id="1-2", data="\x1b[2J \x9b31m \x7f 資", at="2026-11-20T08:00:00Z"
)


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_the_wires_and_harmless_on_a_terminal(capsysbinary, monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    JsonLines().take(EVENT)
    line = capsysbinary.readouterr().out.rstrip(b"\n")
    assert decode_event(line) == EVENT
    if terminal:
        assert not {"\x1b", "\x9b", "\x7f"} & set(line.decode())
    else:
        assert line == encode_event(EVENT)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("資料庫", 5, "資料…"),
        ("資料庫", 6, "資料庫"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_wide_characters_count_as_wide(text, width, shown):
    assert cut(text, width) == shown
    assert columns(shown) <= width
