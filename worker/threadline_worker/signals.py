"""Runs a worker until it has drained: one signal is a soft stop, a second cuts, and no blocked tool holds the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from threadline.errors import ThreadlineError
from threadline_worker.exhaustion import EXHAUSTED_EXIT, is_shortage
from threadline_worker.main import WorkerProcess
from threadline_worker.settings import WorkerSettings
from threadline_worker.telemetry.last_words import end_process
from threadline_worker.telemetry.trace_langsmith import langsmith_in_use

__all__ = ["run_worker"]

log = structlog.get_logger(__name__)

#: How long threads of tools may take to end once all is given back.
_THREADS_SECONDS = 3.0
#: How long a worker of a dead `dev` or `demo` may take to end; what it has not given back is rescued at the next start.
_ORPHAN_SECONDS = 2.0


def run_worker(settings: WorkerSettings, *, burst: bool = False, until_eof: bool = False) -> None:
    """Run a worker in this process until it has drained; SIGTERM and SIGINT drain, a second one stops at once.

    With `until_eof` the end of standard input stops it too: whoever started it is gone.
    """
    executor = ThreadPoolExecutor(thread_name_prefix="threadline-sync")
    try:
        asyncio.run(_with_signals(settings, executor, burst=burst, until_eof=until_eof))
    except (ThreadlineError, ModuleNotFoundError):  # what a user can mend is told by the program
        raise
    except Exception as error:  # noqa: BLE001 - the process' boundary: without a beat it must not wait for tools' threads
        bug, code = error, EXHAUSTED_EXIT if is_shortage(error) else 1
        end_process(code, lambda: log.critical("exception.uncaught", where="the worker, which ends", exc_info=bug))
    # All is given back. A tool that blocks its thread must not hold the process, which would wait for it for ever.
    leaving = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    leaving.start()
    leaving.join(_THREADS_SECONDS)
    # Nor must LangSmith's threads, which have had their time.
    if leaving.is_alive() or langsmith_in_use():
        end_process(0)


def _on_input(loop: asyncio.AbstractEventLoop, process: WorkerProcess) -> None:
    """The end of standard input: the parent is dead and its servers with it, so nothing is waited for long."""
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        process.stop_now()
        loop.call_later(_ORPHAN_SECONDS, os._exit, 1)


async def _with_signals(
    settings: WorkerSettings, executor: ThreadPoolExecutor, *, burst: bool, until_eof: bool
) -> None:
    process = WorkerProcess(settings, burst=burst)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(executor)
    received = 0

    def on_signal() -> None:
        nonlocal received
        received += 1
        (process.drain if received == 1 else process.stop_now)()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), lambda: _on_input(loop, process))
    try:
        await process.run()
    finally:
        # asyncio.run waits for the default executor without a limit; run_worker waits for ours with one.
        loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
