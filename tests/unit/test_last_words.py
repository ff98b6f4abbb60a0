"""What is said and sent at the end holds no process, also where it never comes to an end itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from threadline_worker.exhaustion import EXHAUSTED_EXIT
from threadline_worker.telemetry.last_words import at_most


async def test_who_never_takes_the_last_words_is_left_behind() -> None:
    never, sent = threading.Event(), []
    await at_most(0.01, lambda: never.wait() and None, "left behind")
    await asyncio.wait_for(at_most(60, lambda: sent.append(1), "soon over"), 10)
    assert sent == [1]
    never.set()


_PROGRAM = """
import logging, threading
from threadline_worker.telemetry import last_words
from threadline_worker.telemetry.logs import configure_logs
configure_logs()
last_words._LAST_LINE_SECONDS = {limit}
log = logging.getLogger("threadline_worker.x")

class Wedged:
    def __str__(self):
        begun.set()
        threading.Event().wait()

begun = threading.Event()
if {wedged}:
    threading.Thread(target=log.error, args=("%s", Wedged()), daemon=True).start()
    begun.wait()
last_words.end_process(71, lambda: log.error("the last line"))
"""


@pytest.mark.parametrize("wedged", [False, True])
def test_a_process_that_must_end_says_why_and_ends_also_if_the_log_itself_is_wedged(*, wedged: bool) -> None:
    """V4: a worker whose loop hangs in the words of an object, which are made under the log's lock."""
    code = _PROGRAM.format(wedged=wedged, limit=0.2 if wedged else 20)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 71
    assert ("the last line" in ended.stderr) is not wedged


_BUG = """
import asyncio, threading
from threadline_worker import signals
from threadline_worker.telemetry.logs import configure_logs
configure_logs()

class Broken:
    def __init__(self, *_args, **_more):
        self.drain = self.stop_now = None

    async def run(self):
        begun = threading.Event()
        asyncio.get_running_loop().run_in_executor(None, lambda: (begun.set(), threading.Event().wait()))
        begun.wait()
        raise {error}

signals.WorkerProcess = Broken
signals.run_worker(None)
"""


@pytest.mark.parametrize(
    ("error", "name", "code"),
    [
        ("KeyError('a bug')", "KeyError", 1),
        # L7: whoever of the worker's own tasks was told that there is no memory left
        (
            "ExceptionGroup('tasks', [ExceptionGroup('taps', [KeyError(), MemoryError()])])",
            "MemoryError",
            EXHAUSTED_EXIT,
        ),
    ],
)
def test_a_bug_of_ours_ends_the_process_whatever_a_tool_s_thread_does(error: str, name: str, code: int) -> None:
    program = _BUG.replace("{error}", error)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == code
    assert '"exception.uncaught"' in ended.stderr
    assert name in ended.stderr
