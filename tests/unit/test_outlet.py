"""A reader that stops reading holds nobody: lines wait in memory, and what does not fit is counted."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.log_lines import log_lines
from threadline_worker.telemetry import outlet
from threadline_worker.telemetry.outlet import Outlet

theirs = logging.getLogger("agent")


@pytest.fixture
def pipe() -> Iterator[tuple[int, Outlet]]:
    """The end to read, and what writes into the other one."""
    reading, writing = os.pipe()
    with log_lines(), os.fdopen(writing, "w") as stream:
        (configured,) = logging.getLogger().handlers
        made = Outlet(stream)
        made.setFormatter(configured.formatter)
        logging.getLogger().handlers[:] = [made]
        yield reading, made
        logging.getLogger().handlers[:] = [configured]
        drained = threading.Thread(target=lambda: read(reading, "never"), daemon=True)
        drained.start()
        made.flush()
    drained.join(5)
    os.close(reading)


def read(reading: int, until: str) -> list[str]:
    text = b""
    while until.encode() not in text and (data := os.read(reading, 65_536)):
        text += data
    return [json.loads(line)["event"] for line in text.splitlines() if line.endswith(b"}")]


def test_lines_are_written_at_once_while_somebody_reads(pipe: tuple[int, Outlet]) -> None:
    reading, made = pipe
    theirs.info("one")
    assert made._pipe is not None
    assert made._pipe.idle
    assert read(reading, "one") == ["one"]


def test_a_pipe_that_nobody_reads_holds_nobody_and_loses_nothing_that_fits(pipe: tuple[int, Outlet]) -> None:
    reading, _made = pipe
    for number in range(2000):  # 0.7 MB; the pipe takes 64 KiB
        logging.getLogger(f"agent{number % 300}").info("%d %s", number, "x" * 200)  # returns, or this test hangs
    events = read(reading, '"1999 ')
    assert [int(event.split()[0]) for event in events] == list(range(2000))[: len(events)]
    assert len(events) >= 1999


def test_what_does_not_fit_into_memory_is_counted(pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, made = pipe
    monkeypatch.setattr(outlet, "_MOST_BYTES", 100_000)
    for number in range(3000):
        logging.getLogger(f"agent{number % 400}").info("%d %s", number, "x" * 200)
    assert made._pipe is not None
    dropped = made._pipe.dropped
    assert dropped > 1000
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(read(reading, "log.dropped")))
    reader.start()
    made._pipe.drained(10)
    assert made._pipe.idle
    theirs.info("room again")
    reader.join(10)
    assert lines[-2:] == ["room again", "log.dropped"]
    assert len(lines) - 2 == 3000 - dropped


def test_a_collection_of_garbage_may_log_while_a_line_is_put(
    pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio tells in `__del__` of what nobody has asked for; the loop's own thread must not wait for itself."""
    reading, _made = pipe

    class Collecting(threading.Thread):
        def start(self) -> None:
            if self.name == "threadline-log":
                theirs.error("never retrieved")  # hangs with a lock that this thread holds
            super().start()

    monkeypatch.setattr(threading, "Thread", Collecting)

    def talk() -> None:
        for _ in range(20):
            theirs.info("x" * 5000)

    writer = threading.Timer(0, talk)
    writer.daemon = True
    writer.start()
    writer.join(10)
    assert not writer.is_alive()
    logging.getLogger("last").info("the last one")
    assert "never retrieved" in read(reading, "the last one")


def test_a_pipe_that_does_not_block_loses_nothing(pipe: tuple[int, Outlet]) -> None:
    """Whoever shares the terminal or the pipe may have switched blocking off, for all who have it."""
    reading, made = pipe
    os.set_blocking(made._stream.fileno(), False)
    for number in range(300):
        logging.getLogger(f"agent{number}").info("x" * 1000)
    theirs.info("the last one")
    assert len(read(reading, "the last one")) == 301


def test_without_a_thread_lines_wait_for_the_next_try(
    pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, made = pipe

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for number in range(50):
            logging.getLogger(f"agent{number}").info("x" * 5000)
    assert made._pipe is not None
    assert not made._pipe.idle
    theirs.info("the last one")
    assert len(read(reading, "the last one")) == 51


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with log_lines() as lines, os.fdopen(writing, "w") as stream:
        made = Outlet(stream)
        made.setFormatter(logging.getLogger().handlers[0].formatter)
        logging.getLogger().handlers[:] = [made]
        theirs.info("nobody hears it")
        made.flush()
    assert lines.text == ""


def test_a_file_takes_every_line(tmp_path: Path) -> None:
    with log_lines(), (tmp_path / "log").open("w") as stream:
        made = Outlet(stream)
        made.setFormatter(logging.getLogger().handlers[0].formatter)
        logging.getLogger().handlers[:] = [made]
        began = time.monotonic()
        for number in range(100):
            logging.getLogger(f"agent{number}").info("x" * 9000)
        assert time.monotonic() - began < 5
    assert len((tmp_path / "log").read_text().splitlines()) == 100
