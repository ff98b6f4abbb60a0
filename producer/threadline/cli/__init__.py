"""The entry point `threadline`: without the cli extra it says in one sentence what to install."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with a code of contract.md; 2 if click or rich is not installed."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"threadline: the command line needs {' and '.join(missing)}: install 'threadline[cli]'\n")
        raise SystemExit(2)
    from threadline.cli.app import run  # noqa: PLC0415 - needs what was looked for above

    run()
