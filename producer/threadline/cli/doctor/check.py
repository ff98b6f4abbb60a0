"""A check's finding: what was looked at, how bad it is, what was seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from threadline.cli.errors import ExitCode

__all__ = ["Check", "Level", "verdict"]


class Level(StrEnum):
    """How bad: `info` is worth knowing, `warn` costs something some day, `fail` does not work now."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One finding; `unavailable` says that a server cannot be reached or is not migrated."""

    name: str
    level: Level
    seen: str
    advice: str = ""
    unavailable: bool = False

    def shown(self) -> dict[str, str]:
        """The finding as `--json` prints it."""
        return {"name": self.name, "level": str(self.level), "seen": self.seen, "advice": self.advice}


def verdict(checks: Iterable[Check]) -> ExitCode:
    """4 if a server is unavailable or not migrated, 1 if anything else fails, else 0."""
    failed = [check for check in checks if check.level is Level.FAIL]
    if any(check.unavailable for check in failed):
        return ExitCode.UNAVAILABLE
    return ExitCode.JOB_FAILED if failed else ExitCode.OK
