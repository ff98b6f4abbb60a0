"""The command line against a real Valkey and a real Postgres; the test plays the workers, through the real ledger."""

from __future__ import annotations

import asyncio
import json
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest

from threadline.contract.events import Event, decode_event, encode_event
from threadline.contract.keys import Keys
from threadline.contract.states import State
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.ledger.transition_event import event_of
from threadline.log.append import EventLog
from threadline.redis_client import connect_redis

KEYS = Keys()
THREADLINE = [sys.executable, "-m", "threadline.cli"]
SECONDS = 20


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    """What a shell in a terminal of 80 by 24 has besides."""
    return {**env, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}


class Hands:
    """Two workers without an agent: they claim, tell and end as they are told."""

    def __init__(self, env: dict[str, str]) -> None:
        self._runner = asyncio.Runner()
        self._database = Database(env["DATABASE_URL"], application_name="test")
        self._redis = connect_redis(env["REDIS_URL"])
        self._custody = Custody(self._database, Queries(KEYS.schema))
        self._log = EventLog(self._redis, KEYS, max_events=10_000, ttl_seconds=600)
        self._n = 1
        for name in ("worker-1", "worker-2"):
            self._run(self._register(name))

    def close(self) -> None:
        self._run(self._database.close())
        self._run(self._redis.aclose())
        self._runner.close()

    def claim(self, job: str, worker: str = "worker-1") -> Claim:
        claim = self._run(self._custody.claim(job, worker))
        assert isinstance(claim, Claim)
        self._announce(job)
        self._n = 1
        return claim

    def tell(self, claim: Claim, data: Any, kind: str = "updates", ns: tuple[str, ...] = ()) -> None:
        self._n += 1
        event = Event(
            job_id=claim.job_id,
            thread_id=claim.thread_id,
            type=kind,
            id=f"{claim.epoch}-{self._n}",
            ns=list(ns),
            data=data,
        )
        pair = (self._n, encode_event(event))
        self._run(self._log.append(claim.job_id, claim.thread_id, claim.epoch, [pair]))

    def release(self, claim: Claim, code: str) -> None:
        self._run(self._custody.release(claim, code))
        self._announce(claim.job_id)

    def finish(self, claim: Claim, state: State, **how: Any) -> None:
        self._run(self._custody.finish(claim, state, **how))
        self._announce(claim.job_id)

    def _announce(self, job: str) -> None:
        row = self._run(self._custody.transition(job))
        self._run(self._log.append(job, row["thread_id"], row["epoch"], [(1, encode_event(event_of(row)))]))

    async def _register(self, name: str) -> None:
        agents = {"worker_id": name, "lock_key": 1, "version": "1", "agents": '{"research": {}}', "concurrency": 1}
        await self._database.rows(self._custody.queries["register"], agents)

    def _run(self, call: Any) -> Any:
        return self._runner.run(call)


@pytest.fixture
def hands(env: dict[str, str]) -> Iterator[Hands]:
    playing = Hands(env)
    yield playing
    playing.close()


@pytest.fixture
def threadline(env: dict[str, str]) -> Any:
    def call(*args: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*THREADLINE, *args],
            env={**env, **more},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture
def job(threadline: Any) -> str:
    return threadline("enqueue", "research", "What is new?").stdout.strip()


def on_terminal(env: dict[str, str], *args: str, width: int = 80, height: int = 24) -> pexpect.spawn[str]:
    program, *rest = THREADLINE
    size = {"COLUMNS": str(width), "LINES": str(height)}
    child = pexpect.spawn(
        program, [*rest, *args], env={**env, **size}, dimensions=(height, width), encoding="utf-8", timeout=SECONDS
    )
    child.delayafterclose = child.delaybeforesend = None
    return child


def call(key: str, name: str, **args: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"type": "ai", "data": {"id": f"m-{key}", "tool_calls": [{"id": key, "name": name, "args": args}]}}
        ]
    }


def answer(key: str) -> dict[str, Any]:
    return {"messages": [{"type": "tool", "data": {"tool_call_id": key, "content": "ok"}}]}


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
    assert list(status) == [*names.split(), "metadata"]
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


def test_the_live_view_follows_a_job_over_a_dead_worker_to_its_end(env, hands, job):
    child = on_terminal(env, "watch", job)
    child.expect_exact("research")
    claim = hands.claim(job)
    child.expect_exact("on worker-1")
    plan = [{"content": "read the notes", "status": "in_progress"}, {"content": "write", "status": "pending"}]
    hands.tell(claim, {"tools": {"todos": plan}})
    child.expect_exact("0/2")
    child.expect_exact("read the notes")
    hands.tell(claim, {"model": call("d", "task", subagent_type="critic", description="look closely")})
    child.expect_exact("critic")
    hands.tell(claim, {"model": call("s", "search_corpus", query="tides")}, ns=("tools:1",))
    child.expect("search_corpus.*tides")
    hands.release(claim, "dead_worker")
    child.expect_exact("worker-1 is dead")
    claim = hands.claim(job, "worker-2")
    child.expect_exact("worker-2 picks up from worker-1 after")
    hands.tell(claim, {"tools": {"files": {"/report.md": {"content": "x" * 2500}}, **answer("d")}})
    child.expect_exact("/report.md (2.5k)")
    hands.finish(claim, State.SUCCEEDED, result={"report": "x"})
    child.expect("succeeded in .*1 pick-up")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_ends_the_watching_and_nothing_else(env, hands, threadline, job):
    hands.claim(job)
    child = on_terminal(env, "watch", job)
    child.expect_exact("on worker-1")
    child.sendintr()
    child.expect_exact("\x1b[?25h")  # the cursor is back
    child.expect_exact(f"threadline: stopped watching; job {job} goes on")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert json.loads(threadline("status", job, "--json").stdout)["state"] == "running"


def test_a_terminated_watch_gives_the_cursor_back(env, hands, job):
    hands.claim(job)
    child = on_terminal(env, "watch", job)
    child.expect_exact("on worker-1")
    child.kill(signal.SIGTERM)
    child.expect_exact("\x1b[?25h")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 143


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_that_wants_no_movement_gets_lines(env, hands, job, more):
    hands.finish(hands.claim(job), State.SUCCEEDED, result={})
    child = on_terminal({**env, **more}, "watch", job)
    child.expect(pexpect.EOF)
    assert "\x1b" not in child.before
    assert "started      worker-1" in child.before


def test_enqueue_watch_follows_and_ends_as_the_job(env, hands):
    child = on_terminal(env, "enqueue", "research", "q", "--watch")
    child.expect(r"([0-9a-f]{32})\r\n")
    hands.finish(hands.claim(child.match.group(1)), State.FAILED, code="error", message="boom")
    child.expect("failed: error: boom")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1


def test_a_report_is_drawn_on_a_terminal(env, hands, job):
    hands.finish(hands.claim(job), State.SUCCEEDED, result={"report": "# The tides\n\n* **moon** \x1b[2J"})
    child = on_terminal(env, "result", job)
    child.expect(pexpect.EOF)
    assert "The tides" in child.before
    assert "# The" not in child.before
    assert "**" not in child.before
    assert "\x1b[2J" not in child.before


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
