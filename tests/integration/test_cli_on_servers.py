"""The command line against a real Valkey and a real Postgres; the test plays the workers, through the real ledger."""

from __future__ import annotations

import asyncio
import json
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.hands import Hands, answer, call
from support.nursery import called
from support.terminal import Terminal
from threadline.contract.events import decode_event, encode_event
from threadline.contract.states import State
from threadline.redis_client import connect_redis

THREADLINE = [sys.executable, "-m", "threadline.cli"]
SECONDS = 20


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    """What a shell in a terminal of 80 by 24 has besides."""
    return {**env, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}


@pytest.fixture
def hands(env: dict[str, str]) -> Iterator[Hands]:
    playing = Hands(env)
    yield playing
    playing.close()


@pytest.fixture
def threadline(env: dict[str, str]) -> Any:
    def call(*args: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        done = called(args, {**env, **more}, stdin=stdin, timeout=SECONDS)
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture
def job(threadline: Any) -> str:
    return threadline("enqueue", "research", "What is new?").stdout.strip()


def test_enqueue_prints_the_id_and_nothing_else(threadline):
    done = threadline("enqueue", "research", "q")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{32}\n", done.stdout)


def test_enqueue_takes_all_options_and_the_input_from_stdin(threadline):
    args = ["--thread", "t-1", "--user", "42", "--idempotency-key", "k", "--metadata", "ticket=1881", "--json"]
    more = ["--timeout", "60", "--expires", "600", "--run-at", "2035-01-01T00:00Z", "--stream-mode", "messages"]
    first = threadline("enqueue", "research", "-", "--input-json", *args, *more, stdin='{"messages": []}')
    given = json.loads(first.stdout)
    assert {**given, "job_id": ""} == {"job_id": "", "thread_id": "t-1", "state": "queued"}
    again = threadline("enqueue", "research", "-", "--input-json", *args, *more, stdin=' {"messages":[]}')
    assert json.loads(again.stdout)["job_id"] == given["job_id"]
    status = json.loads(threadline("status", given["job_id"], "--json").stdout)
    assert (status["user_id"], status["metadata"]) == ("42", {"ticket": "1881"})


def test_refusals_have_their_codes(threadline, hands, job):
    assert hands
    cases = [
        (("enqueue", "nobody", "q"), 2, "no live worker runs the agent 'nobody'; known: research"),
        (("enqueue", "research", "-"), 2, "input is empty"),
        (("status", "unknown"), 3, "no job unknown is known"),
        (("watch", "unknown"), 3, "no job unknown is known"),
        (("status", job, "--user", "other"), 2, "belongs to another user"),
        (("retry", job), 2, "only failed and cancelled jobs"),
        (("result", job, "--timeout", "0.2"), 124, "has not ended within 0.2 s"),
    ]
    for args, code, says in cases:
        done = threadline(*args)
        assert (done.returncode, done.stdout) == (code, ""), args
        assert done.stderr.startswith("threadline: "), args
        assert says in done.stderr


def test_status_and_jobs_as_json_are_job_statuses(threadline, job):
    names = (
        "job_id thread_id user_id agent state epoch worker_id failures stalls error created_at started_at finished_at"
    )
    status = json.loads(threadline("status", job, "--json").stdout)
    assert list(status)[:14] == [*names.split(), "metadata"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", status["created_at"])
    assert json.loads(threadline("jobs", "--thread", status["thread_id"], "--json").stdout) == [status]
    assert json.loads(threadline("jobs", "--user", "nobody", "--json").stdout) == []
    people = threadline("jobs", "--thread", status["thread_id"]).stdout.splitlines()
    assert people[0].startswith("JOB ")
    assert status["thread_id"] in people[1]
    assert "state     queued" in threadline("status", job).stdout


def test_a_job_that_succeeds(threadline, hands, job):
    claim = hands.claim(job)
    hands.tell(claim, {"tools": {"files": {"/r.md": {"content": "x"}}}})
    hands.finish(claim, State.SUCCEEDED, result={"report": "# Report\n\nText [1].", "sources": []})
    watched = threadline("watch", job, "--json")
    events = [decode_event(line) for line in watched.stdout.splitlines()]
    assert (watched.returncode, watched.stderr) == (0, "")
    assert [event.id for event in events] == ["0-1", "1-1", "1-2", "2-1"]
    assert [encode_event(event).decode() for event in events] == watched.stdout.splitlines()
    assert threadline("result", job).stdout == "# Report\n\nText [1].\n"
    assert json.loads(threadline("result", job, "--json").stdout)["sources"] == []
    assert threadline("cancel", job).stdout == "succeeded\n"


@pytest.mark.parametrize("variable", ["", "DATABASE_URL"])
def test_after_goes_on_behind_an_event_also_behind_the_end(threadline, hands, job, variable):
    hands.finish(hands.claim(job), State.FAILED, code="error", message="the model is gone")
    without = {variable: ""} if variable else {}
    rest = threadline("watch", job, "--json", "--after", "1-1", **without)
    assert [decode_event(line).id for line in rest.stdout.splitlines()] == ["2-1"]
    assert (rest.returncode, rest.stderr) == (1, f"threadline: job {job} failed: error: the model is gone\n")
    behind = threadline("watch", job, "--json", "--after", "2-1", **without)
    assert (behind.returncode, behind.stdout) == (1, "")


def test_the_ends_and_their_codes(threadline, hands):
    ends = [
        (State.FAILED, {"code": "error", "message": "boom"}, 1, "error: boom"),
        (State.CANCELLED, {"code": "requested"}, 1, "was cancelled (requested)"),
        (State.INTERRUPTED, {"interrupts": [{"id": "i", "value": "send it?"}]}, 5, "waits for a person"),
    ]
    for state, how, code, says in ends:
        job = threadline("enqueue", "research", "q").stdout.strip()
        hands.finish(hands.claim(job), state, **how)
        for command in ("watch", "result"):
            done = threadline(command, job)
            assert done.returncode == code, (state, command)
            assert says in done.stderr


def test_cancel_and_retry(threadline, hands, job):
    assert threadline("cancel", job).stdout == "cancelled\n"
    assert threadline("retry", job).stdout == f"{job}\n"
    hands.claim(job)
    asked = threadline("cancel", job, "--rollback")
    assert (asked.returncode, asked.stdout, asked.stderr) == (
        0,
        "running\n",
        f"threadline: job {job} was asked to stop\n",
    )


def test_piped_lines_fit_and_have_no_colour(threadline, hands, job):
    claim = hands.claim(job)
    hands.tell(claim, {"model": call("c", "search", query="x" * 300)})
    hands.tell(claim, {"tools": answer("c")})
    hands.finish(claim, State.SUCCEEDED, result={})
    done = threadline("watch", job)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.splitlines()[-1].startswith("succeeded in 0:00 (1 call, 5 events)")


def test_a_report_is_drawn_on_a_terminal(env, hands, job):
    hands.finish(hands.claim(job), State.SUCCEEDED, result={"report": "# The tides\n\n* **moon** \x1b[2J"})
    with Terminal(env, "result", job) as terminal:
        assert terminal.end() == 0
    assert "The tides" in terminal.text
    assert "# The" not in terminal.text
    assert "**" not in terminal.text
    assert "\x1b[2J" not in terminal.raw


def test_a_reader_that_leaves_is_no_error(env, job):
    watching = subprocess.Popen([*THREADLINE, "watch", job], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert watching.stdout is not None
    # Each line is flushed as it comes; without that nothing would be readable before the job ends.
    assert select.select([watching.stdout], [], [], SECONDS)[0], watching.kill()
    assert watching.stdout.readline()
    watching.stdout.close()
    cancelled = subprocess.run([*THREADLINE, "cancel", job], env=env, check=True, capture_output=True)
    assert cancelled.stdout == b"cancelled\n"
    _, stderr = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, stderr) == (141, b"")


def test_doctor_looks_at_everything(threadline, hands):
    assert hands
    done = threadline("doctor", "--json", THREADLINE_LEASE="3")
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (0, "")
    levels = {name: check["level"] for name, check in found.items() if not name.startswith("agent")}
    assert {name: level for name, level in levels.items() if level != "ok"} == {
        "variables": "warn",
        "enqueue keys": "info",
        "redis persistence": "warn",
        "worker locks": "warn",
    }
    assert "2 alive: " in found["workers"]["seen"]
    assert all(check["advice"] for check in found.values() if check["level"] in {"warn", "fail"})


def test_doctor_where_config_is_refused(env, threadline):
    async def forbid() -> None:
        redis = connect_redis(env["REDIS_URL"])
        await redis.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-config")
        await redis.aclose()

    asyncio.run(forbid())
    limited = re.sub(r"//.*@", "//limited:pw@", env["REDIS_URL"])
    found = {check["name"]: check for check in json.loads(threadline("doctor", "--json", REDIS_URL=limited).stdout)}
    assert found["redis persistence"]["level"] == "info"
    assert "CONFIG is refused" in found["redis persistence"]["seen"]


def test_doctor_of_an_empty_schema_says_migrate(threadline):
    done = threadline("doctor", THREADLINE_NAMESPACE="elsewhere")
    assert done.returncode == 4
    assert "→ run `threadline migrate`" in done.stdout
    assert threadline("status", "j", THREADLINE_NAMESPACE="elsewhere").returncode == 4


def test_doctor_without_a_reachable_redis(threadline):
    done = threadline("doctor", REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert done.returncode == 4
    assert "not reachable" in done.stdout
    assert "secret" not in done.stdout
    assert "✔ postgres version" in done.stdout
