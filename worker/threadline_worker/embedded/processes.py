"""Tells whether a process id still means the process it once meant; ids come round again, in containers soon."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

__all__ = ["process_birth", "works_in"]

_HAS_PROC: Final = Path("/proc/self/stat").exists()  # Linux; elsewhere ps tells


def process_birth(pid: int) -> str | None:
    """When the process was started, in the system's own words; None if it has ended."""
    if not _HAS_PROC:
        return _ps(pid, "lstart=") or None
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if words[0] in {"Z", "X"} else words[19]  # ended, but not yet collected by its parent


def works_in(pid: int, cluster: Path) -> bool:
    """Whether process `pid` is a Postgres of the data folder `cluster`; a guess on its name where there is no /proc."""
    if not _HAS_PROC:
        return "postgres" in _ps(pid, "command=")
    try:
        return Path(f"/proc/{pid}/cwd").samefile(cluster)  # Postgres works from within its data folder
    except OSError:
        return False


def _ps(pid: int, column: str) -> str:
    told = subprocess.run(  # noqa: S603 -- a fixed program
        ["/bin/ps", "-o", column, "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "TZ": "UTC"},
    )
    return told.stdout.strip()
