"""`threadline watch` on a real terminal, over real servers; the test plays the workers, through the real ledger."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.hands import Hands, answer, call
from support.servers import controlled_servers
from support.terminal import THREADLINE, Terminal
from threadline.contract.states import State

#: All that the picture may write: cursor up, down, hidden and back, erase, colours, no wrapping, synchronised.
OURS = {"\x1b[0A", "\x1b[0B", "\x1b[?0l", "\x1b[?0h", "\x1b[J", "\x1b[K", "\x1b[0m", "\x1b[0;0m"}
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b1m\u202e資料\u2028"


@pytest.fixture
def hands(env: dict[str, str]) -> Iterator[Hands]:
    playing = Hands(env)
    yield playing
    playing.close()


@pytest.fixture
def enqueue(env: dict[str, str]) -> Callable[..., str]:
    def run(*more: str) -> str:
        done = subprocess.run(
            [*THREADLINE, "enqueue", "research", "What is new?", *more],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    return run


def status(env: dict[str, str], job: str) -> str:
    done = subprocess.run([*THREADLINE, "status", job, "--json"], env=env, capture_output=True, check=True)
    return json.loads(done.stdout)["state"]


def test_the_live_view_follows_a_job_over_a_dead_worker_to_its_end(env, hands, enqueue):
    job = enqueue()
    with Terminal(env, "watch", job) as terminal:
        terminal.until("research")
        claim = hands.claim(job)
        terminal.until("on worker-1")
        plan = [{"content": "read the notes", "status": "in_progress"}, {"content": "write", "status": "pending"}]
        hands.tell(claim, {"tools": {"todos": plan}})
        terminal.until("▶ read the notes")
        hands.tell(claim, {"model": call("d", "task", subagent_type="critic", description="look closely")})
        terminal.until("critic look closely")
        hands.tell(claim, {"model": call("s", "search_corpus", query="tides")}, ns=("tools:1",))
        terminal.until("search_corpus tides")
        hands.release(claim, "dead_worker")
        terminal.until("worker-1 is dead")
        claim = hands.claim(job, "worker-2")
        terminal.until("worker-2 picks up from worker-1 (dead) after")
        # The terminal becomes narrow, then wide: one picture is there, not two, and nothing of the one before.
        terminal.resize(44, 20)
        terminal.until(lambda text: "\n  on worker-2\n" in text)
        terminal.resize(150, 30)
        text = terminal.until(lambda text: "Plan" in text and "Work" in text.split("Plan")[1].split("\n")[0])
        assert [text.count(word) for word in ("research  running", "Plan", "worker-2 picks up")] == [1, 1, 1]
        # What somebody writes into a message reaches no terminal.
        hands.tell(claim, {"model": {"messages": [{"type": "ai", "data": {"id": "h", "content": f"x{HOSTILE}y"}}]}})
        terminal.until("資料")
        hands.tell(claim, {"tools": {"files": {"/report.md": {"content": "x" * 2500}}, **answer("d")}})
        terminal.until("/report.md (2.5k)")
        hands.finish(claim, State.SUCCEEDED, result={"report": "x"})
        assert terminal.end() == 0
    assert "1 pick-up" in terminal.text
    assert f"threadline result {job}" in terminal.text
    assert not terminal.screen.cursor.hidden
    assert terminal.sequences - OURS == set()
    assert "\x07" not in terminal.raw


def test_without_colour_it_is_drawn_all_the_same(env, hands, enqueue):
    job = enqueue()
    hands.claim(job)
    with Terminal({**env, "NO_COLOR": "1"}, "watch", job) as terminal:
        terminal.until("research  running")
        terminal.child.sendintr()
        assert terminal.end() == 130
    styles = {code for found in re.findall(r"\x1b\[([\d;]*)m", terminal.raw) for code in found.split(";")}
    assert styles <= {"0", "1", "2", "3"}


@pytest.mark.parametrize(("more", "args"), [({"TERM": "dumb"}, []), ({}, ["--plain"])], ids=["dumb", "plain"])
def test_a_terminal_that_wants_no_movement_gets_lines(env, hands, enqueue, more, args):
    job = enqueue()
    hands.finish(hands.claim(job), State.SUCCEEDED, result={})
    with Terminal({**env, **more}, "watch", job, *args) as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.raw
    assert "started      worker-1" in terminal.text


def test_ctrl_c_ends_the_watching_and_nothing_else(env, hands, enqueue):
    job = enqueue()
    hands.claim(job)
    with Terminal(env, "watch", job) as terminal:
        terminal.until("on worker-1")
        terminal.child.sendintr()
        assert terminal.end() == 130
    assert f"threadline: stopped watching; job {job} goes on. Come back with: threadline" in terminal.raw
    assert not terminal.screen.cursor.hidden
    assert "Traceback" not in terminal.raw
    assert status(env, job) == "running"


def test_a_terminated_watch_gives_the_cursor_back(env, hands, enqueue):
    job = enqueue()
    hands.claim(job)
    with Terminal(env, "watch", job) as terminal:
        terminal.until("on worker-1")
        terminal.child.kill(signal.SIGTERM)
        assert terminal.end() == 143
    assert not terminal.screen.cursor.hidden


def test_enqueue_watch_streams_the_words_and_ends_as_the_job(env, hands):
    with Terminal(env, "enqueue", "research", "q", "--watch") as terminal:
        job = next(filter(None, terminal.until("queued").split("\n")))
        claim = hands.claim(job)
        assert claim.options["stream_modes"] == ["updates", "messages", "tools"]
        hands.tell(claim, [{"type": "AIMessageChunk", "data": {"id": "m", "content": "The moon "}}, {}], "messages")
        terminal.until("▏ The moon")
        hands.tell(claim, [{"type": "AIMessageChunk", "data": {"id": "m", "content": "pulls"}}, {}], "messages")
        terminal.until("▏ The moon pulls")
        hands.finish(claim, State.FAILED, code="error", message="boom")
        assert terminal.end() == 1
    assert "failed: error: boom" in terminal.text


def test_a_thread_is_followed_from_job_to_job(env, hands, enqueue):
    first = enqueue("--thread", "t-9")
    with Terminal(env, "watch", "--thread", "t-9") as terminal:
        hands.finish(hands.claim(first), State.SUCCEEDED, result={})
        terminal.until("research  succeeded")
        second = enqueue("--thread", "t-9")
        claim = hands.claim(second)
        text = terminal.until(lambda text: f"job {second}" in text and "running" in text)
        assert "Thread t-9  2 jobs" in text
        assert "✔ research  succeeded in 0:0" in text
        terminal.child.sendintr()
        assert terminal.end() == 130
    assert "thread t-9 goes on. Come back with: threadline watch --thread t-9\r\n" in terminal.raw
    lines = subprocess.Popen(
        [*THREADLINE, "watch", "--thread", "t-9", "--json", "--after", f"{first}/1-1"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        events = [json.loads(lines.stdout.readline()) for _ in range(3)]
        lines.send_signal(signal.SIGINT)
        _, stderr = lines.communicate(timeout=20)
    finally:
        lines.kill()
    assert [(event["job_id"], event["id"]) for event in events] == [(first, "2-1"), (second, "0-1"), (second, "1-1")]
    assert lines.returncode == 130
    assert stderr.endswith(f"Come back with: threadline watch --thread t-9 --after {second}/1-1\n")
    assert claim.job_id == second


def test_silence_and_a_redis_that_goes_away_are_explained(env, template):
    """From Redis alone, with a Redis of its own that dies and comes back empty."""
    with controlled_servers() as servers:
        own = {**env, "REDIS_URL": servers.urls.redis_url, "DATABASE_URL": ""}
        with Terminal(own, "watch", "nobody-knows-this") as terminal:
            terminal.until("! Redis has nothing of job nobody-knows-this; waiting")
            servers.kill_redis()
            terminal.until("! Redis does not answer")
            servers.restart_redis()
            terminal.until(lambda text: "!" not in text)
            playing = Hands({**env, "REDIS_URL": servers.urls.redis_url})
            try:
                playing.announce_only("nobody-knows-this", ["started", "succeeded"])
            finally:
                playing.close()
            assert terminal.end() == 0
        assert "Traceback" not in terminal.raw
