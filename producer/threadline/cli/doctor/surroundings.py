"""What can be wrong around the servers: variables that nobody reads, and agents that cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from threadline.cli.doctor.check import Check, Level
from threadline.environment import unknown_variables

__all__ = ["GROUP", "check_agents", "check_settings"]

#: Entry points of other parts: callables without arguments that give (name, level, seen, advice).
GROUP: Final = "threadline.doctor"


def check_settings(env: Mapping[str, str]) -> list[Check]:
    """Findings about the environment."""
    found = [
        Check("variables", Level.WARN, warning, "mend its name, or unset it") for warning in unknown_variables(env)
    ] or [Check("variables", Level.OK, "every THREADLINE_ variable is known")]
    if env.get("THREADLINE_ENQUEUE_KEYS"):
        return [*found, Check("enqueue keys", Level.OK, "jobs from Redis alone must be signed")]
    advice = "set THREADLINE_ENQUEUE_KEYS here and at the workers if others can write to this Redis"
    return [*found, Check("enqueue keys", Level.INFO, "off: whoever can write to Redis may enqueue as anyone", advice)]


def check_agents() -> list[Check]:
    """What the worker half finds out about the agents, if it is installed here."""
    points = list(entry_points(group=GROUP))
    if not points:
        return [_absent("its checks are not registered")]
    return [check for point in points for check in _asked(point)]


def _asked(point: EntryPoint) -> Iterator[Check]:
    try:
        ask = point.load()
    except ModuleNotFoundError as error:
        yield _absent(f"{error.name} is missing")
        return
    try:
        yield from [Check(name, Level(level), seen, advice) for name, level, seen, advice in ask()]
    except Exception as error:  # noqa: BLE001 - agents are foreign code: the doctor tells what breaks and goes on
        seen = f"{type(error).__name__}: {error}"
        yield Check(point.name, Level.FAIL, seen, "mend it, or run `threadline agents` for more")


def _absent(why: str) -> Check:
    return Check("agents", Level.INFO, f"not checked: the worker half is not installed here ({why})")
