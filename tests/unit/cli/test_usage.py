"""Wrong calls get one sentence and exit code 2, before any server is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from threadline.cli.errors import exit_code, exit_code_of_state
from threadline.errors import (
    BackendUnavailable,
    ConfigurationError,
    InvalidJob,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    NeedsDatabase,
    NotMigrated,
    NotWaiting,
    ResultTimeout,
    ThreadBusy,
    ThreadlineError,
    ThreadMovedOn,
    ThreadOwnedByAnother,
    UnknownAgent,
)

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["wach"], "did you mean watch?"),
        (["status"], "Missing argument 'JOB'"),
        (["status", "a b"], "use 1-200 of letters"),
        (["watch", "j", "--after", "x"], "an event id is <epoch>-<n>"),
        (["watch"], "give a JOB or --thread T, one of them"),
        (["watch", "j", "--thread", "t"], "give a JOB or --thread T, one of them"),
        (["watch", "--thread", "a b"], "thread id 'a b'"),
        (["watch", "--thread", "t", "--after", "2-17"], "a position in a thread is JOB/ID"),
        (["watch", "--thread", "t", "--after", "a b/2-17"], "job id 'a b'"),
        (["watch", "j", "--after", "x/2-17"], "a position in a job is an event id"),
        (["jobs", "--state", "lost"], "is not one of"),
        (["jobs", "--limit", "0"], "--limit"),
        (["jobs", "--queue", "No way"], "queue 'No way': use 1-40 of a-z, 0-9, _ and -"),
        (["enqueue", "research", "q", "--queue", ""], "queue '': use 1-40 of a-z, 0-9, _ and -"),
        (["jobs", "--thread", "a b"], "thread id 'a b'"),
        (["enqueue", "research"], "Missing argument 'INPUT'"),
        (["enqueue", "research", "q", "--run-at", "soon"], "no ISO 8601 moment"),
        (["enqueue", "research", "q", "--run-at", "2026-11-20T08:00"], "has no time zone: add Z"),
        (["enqueue", "research", "q", "--metadata", "ticket"], "give KEY=VALUE"),
        (["enqueue", "research", "q", "--context", "{"], "is not JSON"),
        (["enqueue", "research", "q", "--configurable", "[1]"], "is no JSON object"),
        (["enqueue", "research", "q", "--user", ""], "user id"),
        (["enqueue", "research", "{", "--input-json"], "INPUT is not JSON"),
        (["enqueue", "research", "[1]", "--input-json"], "input is a list"),
        (["enqueue", "research", " "], "input is empty"),
        (["enqueue", "no/agent", "q"], "agent 'no/agent'"),
        (["enqueue", "research", "q", "--timeout", "nan"], "timeout=nan"),
        (["enqueue", "research", "q", "--expires", "-1"], "expires=-1.0"),
        (["jobs"], "jobs() reads the ledger: set DATABASE_URL"),
        (["retry", "j"], "set DATABASE_URL"),
    ],
)
def test_one_sentence_and_two(threadline, monkeypatch, args, says):
    monkeypatch.setenv("REDIS_URL", NOWHERE)
    ended = threadline(*args)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.startswith("threadline: ")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_without_servers_it_says_which_variables(threadline):
    ended = threadline("status", "j")
    assert (ended.code, ended.out) == (2, "")
    assert "set REDIS_URL and DATABASE_URL" in ended.err


def test_a_server_that_is_away_is_four(threadline, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x")
    ended = threadline("status", "j")
    assert ended.code == 4
    assert ended.err.startswith("threadline: Postgres: ")
    assert "secret" not in ended.err


@pytest.mark.parametrize("url", ["secret", "postgresql://me:sec ret@h/x", "http://secret@h"])
def test_an_unreadable_database_url_is_a_usage_error_that_shows_nothing(threadline, monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    ended = threadline("jobs")
    assert ended.code == 2
    assert "DATABASE_URL is not a URL that" in ended.err
    assert "sec" not in ended.err


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(threadline, monkeypatch):
    monkeypatch.setenv("THREADLINE_LEASE", "3")
    assert threadline("jobs").err.startswith(
        "threadline: warning: THREADLINE_LEASE is not known; did you mean THREADLINE_LEASE_SECONDS?\n"
    )


def test_a_traceback_only_for_who_asks(threadline, monkeypatch):
    assert "Traceback" not in threadline("jobs").err
    monkeypatch.setenv("THREADLINE_LOG_LEVEL", "debug")
    assert "Traceback" in threadline("jobs").err


def test_an_entry_point_without_its_extra_says_what_to_install(threadline, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadline_worker.commands", None)  # as if it were not there
    ended = threadline("worker")
    assert ended.code == 2
    assert "`worker`" in ended.err
    assert "install" in ended.err


class _Broken:
    def load(self):
        raise ModuleNotFoundError("No module named 'langgraph'", name="langgraph")


def test_a_missing_library_is_named(threadline, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [_Broken()])
    ended = threadline("dev")
    assert (ended.code, ended.err) == (
        2,
        "threadline: `dev` needs langgraph, which is missing: install 'threadline[worker]'\n",
    )


@pytest.mark.parametrize("error", [*ThreadlineError.__subclasses__(), NotMigrated])
def test_every_error_has_its_code(error):
    codes = {
        JobFailed: 1,
        JobCancelled: 1,
        JobInterrupted: 5,
        JobNotFound: 3,
        BackendUnavailable: 4,
        NotMigrated: 4,
        ResultTimeout: 124,
        **dict.fromkeys((InvalidJob, UnknownAgent, ThreadBusy, ThreadOwnedByAnother, ThreadMovedOn), 2),
        **dict.fromkeys((NotWaiting, NeedsDatabase, ConfigurationError), 2),
    }
    assert exit_code(error.__new__(error)) == codes.get(error, 2)


def test_every_end_has_its_code():
    ends = {"succeeded": 0, "failed": 1, "cancelled": 1, "interrupted": 5}
    assert {state: exit_code_of_state(state) for state in ends} == ends


def test_help_names_every_command_and_imports_none_of_them(threadline):
    ended = threadline("--help")
    assert ended.code == 0
    for name in ("enqueue", "watch", "doctor", "worker", "dev", "demo", "migrate", "agents"):
        assert f"\n  {name} " in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["wrong"]])
def test_light_commands_stay_light(args):
    probe = (
        "import sys\nfrom threadline.cli.app import run\ntry:\n    run(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    heavy = {'rich', 'langgraph', 'langchain_core', 'arq', 'pydantic', 'psycopg'} & sys.modules.keys()\n"
        "    sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_completion_knows_the_commands_without_loading_them():
    command = "import sys; sys.argv = ['threadline']; from threadline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={"_THREADLINE_COMPLETE": "bash_complete", "COMP_WORDS": "threadline w", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,watch", "plain,worker"]


def test_without_the_extra_it_says_what_to_install():
    probe = (
        "import sys, importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'click' else real(name, *a)\n"
        "from threadline.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "threadline: the command line needs click: install 'threadline[cli]'\n"
