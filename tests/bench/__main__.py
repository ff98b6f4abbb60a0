"""`python -m bench [NAME …]` (make bench): each benchmark in a process of its own, one after another; JSON lines.

A figure of one machine says little; the lines hold ratios and percentiles of one run, to be compared with each other.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: What the benchmarks share, and the graphs that they run.
_NO_BENCHMARKS = frozenset({"__main__", "house", "slow_graph", "typist"})


def main() -> int:
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NO_BENCHMARKS)
    if unknown := [name for name in sys.argv[1:] if name not in known]:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}", file=sys.stderr)  # noqa: T201
        return 2
    failed = []
    for name in sys.argv[1:] or known:
        print(f"# {name}", flush=True)  # noqa: T201 - its output
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)  # noqa: T201
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
