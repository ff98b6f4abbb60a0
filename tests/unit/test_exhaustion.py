"""A worker without memory, or without a beat, ends itself; one request that was too large is the job's own affair."""

from __future__ import annotations

import subprocess
import sys

import pytest

from threadline_worker.exhaustion import EXHAUSTED_EXIT, end_if_exhausted
from threadline_worker.liveness import STALLED_EXIT
from threadline_worker.outcome import Retriable, classify

NO_THREAD = RuntimeError("can't start new thread")
LITTLE_LEFT = """
import resource
from pathlib import Path
from threadline_worker.exhaustion import end_if_exhausted
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 16 * 2**20, resource.RLIM_INFINITY))
end_if_exhausted({error})
"""
BROKEN_BEAT = """
import asyncio
from threadline_worker.liveness import Liveness

async def broken(self):
    raise {error}

async def main():
    liveness = Liveness.__new__(Liveness)
    Liveness._beat_for_life = broken
    await asyncio.to_thread(liveness._in_thread)

asyncio.run(main())
"""


def ended(program: str, error: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", program.replace("{error}", error)], capture_output=True, check=False, timeout=60
    ).returncode


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on the address space")
@pytest.mark.parametrize("error", ["MemoryError()", repr(NO_THREAD)])
def test_L7_without_memory_the_process_ends_itself(error: str) -> None:
    assert ended(LITTLE_LEFT, error) == EXHAUSTED_EXIT


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on the address space")
def test_L7_other_errors_end_nothing_however_little_is_left() -> None:
    assert ended(LITTLE_LEFT, "ValueError('MemoryError')") == 0


@pytest.mark.parametrize("error", [MemoryError(), NO_THREAD])
def test_L7_one_request_that_was_too_large_is_tried_again(error: Exception) -> None:
    end_if_exhausted(error)  # there is memory enough
    assert isinstance(classify(error), Retriable)


def test_V4_a_process_whose_beat_breaks_ends_itself() -> None:
    assert ended(BROKEN_BEAT, "MemoryError()") == STALLED_EXIT
