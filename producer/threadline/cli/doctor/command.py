"""`threadline doctor`: looks at everything, also when half of it is broken, and says what to do about each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Final

import click

from threadline.cli.doctor.check import Check, Level, verdict
from threadline.cli.doctor.database import check_database
from threadline.cli.doctor.redis import check_redis
from threadline.cli.doctor.surroundings import check_agents, check_settings
from threadline.cli.options import json_option
from threadline.cli.output import one_line, write, write_json
from threadline.errors import ConfigurationError
from threadline.settings import ClientSettings

__all__ = ["doctor"]

_EPILOG: Final = """\
\b
Examples:
  threadline doctor
  threadline doctor --json | jq -r '.[] | select(.level == "fail") | .advice'
"""
_MARKS: Final = {
    Level.OK: ("✔", "green"),
    Level.INFO: ("·", "blue"),
    Level.WARN: ("!", "yellow"),
    Level.FAIL: ("✖", "red"),
}


@click.command(epilog=_EPILOG)
@json_option
def doctor(*, as_json: bool) -> int:
    """Check servers, schema, workers and settings, and say what to do.

    Exit codes: 0 nothing fails, 1 something does, 4 a server cannot be reached or is not migrated. With --json it
    prints an array of {"name","level","seen","advice"}; levels are ok, info, warn and fail.
    """
    # Not within one loop: what checks the agents may run one of its own.
    checks = [*asyncio.run(_checks(os.environ)), *check_agents()]
    if as_json:
        write_json([check.shown() for check in checks])
    else:
        _print(checks)
    return verdict(checks)


async def _checks(env: Mapping[str, str]) -> list[Check]:
    found = check_settings(env)
    try:
        settings = ClientSettings.from_env(env)
    except ConfigurationError as error:
        return [*found, Check("settings", Level.FAIL, str(error), "set it right and run the doctor again")]
    of_redis, of_database = await asyncio.gather(check_redis(settings), check_database(settings))
    return [*found, *of_redis, *of_database]


def _print(checks: Sequence[Check]) -> None:
    plain = bool(os.environ.get("NO_COLOR"))
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, colour = _MARKS[check.level]
        shown = mark if plain else click.style(mark, fg=colour)
        click.echo(f"{shown} {check.name:<{width}}  {one_line(check.seen, 1000)}")
        if check.advice:
            click.echo(f"  {'':<{width}}  → {check.advice}")
    counts = {level: sum(check.level is level for check in checks) for level in (Level.FAIL, Level.WARN)}
    write(f"\n{len(checks)} checks: {counts[Level.FAIL]} fail, {counts[Level.WARN]} warn")
