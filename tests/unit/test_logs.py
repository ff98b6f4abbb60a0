"""Every log event has a registered name, and every registered name is used; lines of a job say which one."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import structlog

import threadline_worker
from support.log_lines import log_lines
from threadline.encryption.vault import PLAIN
from threadline.errors import ConfigurationError
from threadline_worker.dev import worker_env
from threadline_worker.embedded import ServerUrls
from threadline_worker.main import WorkerProcess
from threadline_worker.settings import WorkerSettings
from threadline_worker.telemetry.job_fields import job_fields
from threadline_worker.telemetry.log_events import LOG_EVENTS, REPEATING
from threadline_worker.telemetry.logs import name_process

ROOT = Path(threadline_worker.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
ours, theirs = structlog.get_logger("threadline_worker.x"), logging.getLogger("agent")


def calls() -> list[ast.Call]:
    """All calls like `log.info(…)` of the worker."""
    return [
        node
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"log", "logger", "_log"}
    ]


def test_log_events_and_their_table_agree() -> None:
    names = [call.args[0] if call.args else None for call in calls()]
    used = {name.value if isinstance(name, ast.Constant) else None for name in names}
    assert used - set(LOG_EVENTS) == set(), "not in telemetry/log_events.py"
    assert set(LOG_EVENTS) - used == set(), "in telemetry/log_events.py, but nothing logs them"
    assert set(LOG_EVENTS) >= REPEATING


def test_fields_are_in_snake_case_and_none_takes_the_place_of_another() -> None:
    fields = {keyword.arg for call in calls() for keyword in call.keywords if keyword.arg is not None}
    assert {name for name in fields if not (name.islower() and name.isidentifier())} == set()
    assert fields & {"event", "level", "timestamp", "logger", "worker_id", "trace_id", "repeated", "exception"} == set()


def test_a_line_of_a_library_has_its_words_and_its_logger() -> None:
    with log_lines() as lines:
        name_process(worker_id="w1")
        theirs.info("hello %s", "world")
        ours.info("job.claimed")
        logging.getLogger("arq.worker").info("chatter")
    theirs_line, our_line = lines.entries
    assert (theirs_line["event"], theirs_line["logger"], theirs_line["level"]) == ("hello world", "agent", "info")
    assert (our_line["event"], our_line["worker_id"]) == ("job.claimed", "w1")
    assert "logger" not in our_line


def test_the_worker_is_named_in_threads_that_inherit_nothing() -> None:
    with log_lines() as lines:
        name_process(worker_id="w1")
        thread = threading.Thread(target=lambda: theirs.warning("from a thread"))
        thread.start()
        thread.join()
    assert lines.entries[0]["worker_id"] == "w1"


def test_a_traceback_shows_no_locals_and_no_lines_of_code() -> None:
    with log_lines(content=True) as lines:
        hidden = "s3cret"
        try:
            {}["broken"]
        except KeyError:
            ours.exception("job.failed", job_id="j")
        del hidden
    (entry,) = lines.entries
    assert entry["exception"][0]["says"] == "'broken'"
    assert "s3cret" not in lines.text
    assert "{}[" not in lines.text


ROW = {"job_id": "a" * 32, "thread_id": "t", "agent": "steps", "epoch": 3, "state": "failed"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("more", "trace"),
    [
        ({"traceparent": None}, "a" * 32),
        ({"traceparent": TRACE}, "0af7651916cd43dd8448eb211c80319c"),
        ({"options": {"traceparent": TRACE}}, "0af7651916cd43dd8448eb211c80319c"),
        ({"options": {}}, "a" * 32),
        ({}, None),
    ],
)
def test_any_row_of_a_job_gives_the_same_fields(more: dict[str, Any], trace: str | None) -> None:
    known = {name: ROW[name] for name in ("job_id", "thread_id", "agent", "epoch")}
    assert job_fields({**ROW, **more}) == {**known, **({"trace_id": trace} if trace else {})}


async def test_a_job_s_context_ends_with_its_task() -> None:
    with log_lines() as lines:

        async def job(name: str) -> None:
            structlog.contextvars.bind_contextvars(job_id=name)
            await asyncio.sleep(0)
            theirs.info(name)

        await asyncio.gather(*(asyncio.create_task(job(name), context=contextvars.copy_context()) for name in "ab"))
        theirs.info("none")
    assert [(entry["event"], entry.get("job_id")) for entry in lines.entries] == [
        ("a", "a"),
        ("b", "b"),
        ("none", None),
    ]


async def test_what_a_job_s_task_raises_is_told_with_the_job() -> None:
    process = WorkerProcess(WorkerSettings.from_env(SERVERS))

    async def run() -> None:
        structlog.contextvars.bind_contextvars(job_id="j1")
        raise ValueError("a bug of ours")

    with log_lines() as lines:
        task = process._spawn(run())
        await asyncio.wait({task})
        await asyncio.sleep(0)  # its callbacks' turn
        theirs.info("afterwards")
    told = [(entry["event"], entry.get("job_id")) for entry in lines.entries]
    assert told == [("job.failed", "j1"), ("afterwards", None)]


SERVERS = {"REDIS_URL": "redis://x", "DATABASE_URL": "postgresql://x"}


def test_contents_are_hidden_unless_asked_for_and_never_shown_where_they_are_sealed() -> None:
    assert WorkerSettings.from_env(SERVERS).client.vault is PLAIN
    assert WorkerSettings.from_env(SERVERS).log_content is False
    assert WorkerSettings.from_env({**SERVERS, "THREADLINE_LOG_CONTENT": "on"}).log_content is True
    keys = {"THREADLINE_ENCRYPTION_KEYS": "k1:" + "A" * 43 + "="}
    assert WorkerSettings.from_env({**SERVERS, **keys}).log_content is False
    with pytest.raises(ConfigurationError, match="unset one of them"):
        WorkerSettings.from_env({**SERVERS, **keys, "THREADLINE_LOG_CONTENT": "on"})
    with pytest.raises(ConfigurationError, match="on, off"):
        WorkerSettings.from_env({**SERVERS, "THREADLINE_LOG_CONTENT": "yes"})


def test_dev_shows_contents_unless_they_are_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ServerUrls("redis://x", "postgresql://x")
    assert worker_env(urls)["THREADLINE_LOG_CONTENT"] == "on"
    monkeypatch.setenv("THREADLINE_ENCRYPTION_KEYS", "k1:x")
    assert "THREADLINE_LOG_CONTENT" not in worker_env(urls)


def test_a_terminal_shows_short_lines() -> None:
    with log_lines(form="console", content=True) as lines:
        name_process(worker_id="host-1-abcdef123456")
        ours.info("job.claimed", job_id="0123456789abcdef", thread_id="a-thread", agent="steps", epoch=1, trace_id="t1")
        try:
            int("x")
        except ValueError:
            ours.exception("job.failed")
    claimed, failed, kind, frame = lines.text.splitlines()
    assert claimed.split()[1:] == ["[info]", "job.claimed", "agent=steps", "epoch=1", "job=01234567", "worker=3456"]
    assert failed.split()[1:3] == ["[error]", "job.failed"]
    assert kind.strip() == "ValueError: invalid literal for int() with base 10: 'x'"
    assert frame.endswith("in test_a_terminal_shows_short_lines")
    assert "\x1b" not in lines.text


def test_a_logger_that_was_first_used_with_the_pipe_is_captured_without_it() -> None:
    """The tests' own affair: which of them comes first is chance."""
    log = structlog.get_logger("first used here")
    with log_lines() as lines:
        log.info("agent.loaded")
    with structlog.testing.capture_logs() as captured:
        log.info("agent.loaded")
    assert (len(lines.entries), len(captured)) == (1, 1)
