"""What runs below a process, and whether it has ended; from /proc, or ps where there is none (macOS)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

__all__ = ["children_below", "gone"]


def children_below(pid: int) -> list[int]:
    """All descendants of a process. A daemon that was re-parented is not among them."""
    parents = {child: parent for child, (parent, _state) in _all().items()}
    found, look = [], [pid]
    while look:
        parent = look.pop()
        below = [child for child, of in parents.items() if of == parent]
        found += below
        look += below
    return found


def gone(pids: list[int], seconds: float = 15) -> bool:
    """Whether all of them have ended (or are zombies of a dead parent) within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        running = _all()
        left = [pid for pid in pids if pid in running and not running[pid][1].startswith("Z")]
        if not left or time.monotonic() > deadline:
            return not left
        time.sleep(0.02)


def _all() -> dict[int, tuple[int, str]]:
    """pid → (parent, state) of all processes."""
    if Path("/proc/self/stat").exists():
        return dict(filter(None, map(_read, Path("/proc").glob("[0-9]*/stat"))))
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return {int(pid): (int(parent), state) for pid, parent, state in rows}


def _read(path: Path) -> tuple[int, tuple[int, str]] | None:
    try:
        # The name in brackets may hold anything: what counts follows the last one.
        state, parent = path.read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):  # it ended meanwhile
        return None
    return int(path.parent.name), (int(parent), state)
