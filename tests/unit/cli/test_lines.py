"""Lines for pipes and programs: nothing in them steers a terminal, and none is wider than it may be."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from threadline.cli.describe import table
from threadline.cli.inbox import _described
from threadline.cli.output import columns, cut, write_json
from threadline.cli.watch.json_lines import JsonLines
from threadline.contract.codec import loads
from threadline.contract.events import Event, decode_event, encode_event
from threadline.contract.job import JobStatus
from threadline.contract.states import State
from threadline.contract.waiting import Waiting

HOSTILE = "\x1b[2J \x9b31m \x7f \u202e資\u2028"
EVENT = Event(job_id="j", thread_id="t", type="custom", id="1-2", data=HOSTILE, at="2026-11-20T08:00:00Z")


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_the_wires_and_harmless_on_a_terminal(capsysbinary, monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    JsonLines().take(EVENT)
    line = capsysbinary.readouterr().out.rstrip(b"\n")
    assert decode_event(line) == EVENT
    if terminal:
        assert not set("\x1b\x9b\x7f\u202e\u2028") & set(line.decode())
    else:
        assert line == encode_event(EVENT)


@pytest.mark.parametrize("terminal", [True, False])
def test_any_json_is_harmless_on_a_terminal(capsysbinary, monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    write_json({"report": HOSTILE})
    line = capsysbinary.readouterr().out
    assert loads(line) == {"report": HOSTILE}
    assert terminal is not bool(set("\x9b\x7f\u202e\u2028") & set(line.decode()))


def test_a_question_cannot_steer_the_terminal():
    asked = [{"id": HOSTILE, "value": HOSTILE}]
    waiting = Waiting(job_id="j", thread_id="t", user_id=HOSTILE, agent="a", interrupts=asked, since=datetime.now(UTC))
    assert not set("\x1b\x9b\x7f\u202e\u2028") & set("".join(_described(waiting)))


def test_a_table_of_jobs_is_no_wider_than_the_terminal():
    one = {"job_id": "j", "thread_id": "t", "agent": "a", "state": State.QUEUED, "epoch": 0}
    jobs = [JobStatus(**one, user_id=user) for user in ("me", "資料庫" * 30)]
    assert all(columns(line) <= 60 for line in table(jobs, 60))
    assert [line.split()[-1] for line in table(jobs, None)][1:] == ["me", "資料庫" * 30]


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
