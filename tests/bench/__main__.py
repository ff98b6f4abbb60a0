"""`python -m bench [NAME …]` (make bench): each benchmark in a process of its own, one after another; JSON lines.

A figure of one machine says little; the lines hold ratios and percentiles of one run, to be compared with each other.
docs/benchmarks.md says what each measures.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Final

from bench.figures import say

_BENCHMARKS: Final = (
    "blackhole",
    "encryption",
    "gauges",
    "latency",
    "memory",
    "observability",
    "pickup",
    "retention",
    "rolling_restart",
    "scale",
    "sizing",
    "slowdown",
    "tokens",
)


def main() -> int:
    if unknown := [name for name in sys.argv[1:] if name not in _BENCHMARKS]:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(_BENCHMARKS)}", file=sys.stderr)  # noqa: T201
        return 2
    failed = []
    for name in sys.argv[1:] or _BENCHMARKS:
        _say_where()
        began = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
        print(f"# {name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)  # noqa: T201
    return bool(failed)


def _say_where() -> None:
    """The machine, and what it had to do just before (processes that wanted a core, over one minute)."""
    say(
        "machine",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=os.cpu_count(),
        load=round(os.getloadavg()[0], 1),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )


if __name__ == "__main__":
    sys.exit(main())
