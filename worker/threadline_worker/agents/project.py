"""What THREADLINE_AGENTS names: an application's langgraph.json as it is, or graphs one by one; nothing is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from threadline.contract.job import check_agent
from threadline.errors import ConfigurationError, InvalidJob

__all__ = ["Project", "read_project"]

_NOT_PYTHON: Final = (".ts", ".mts", ".cts", ".tsx", ".js", ".mjs", ".cjs", ".jsx")
#: What makes a folder an installable project (langgraph-cli looks for the same).
_PROJECT_FILES: Final = ("pyproject.toml", "setup.py")


@dataclass(frozen=True)
class Project:
    """Graphs by name, as `module:attr` or `/path/file.py:attr`, and what has to be there before one is imported.

    `paths` are the folders that belong on Python's path, `packages` what has to be installed, as requirements.
    `variables` stand in the file itself, `env_file` names a file with more.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    packages: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets
    env_file: Path | None = None


def read_project(configured: str, folder: Path) -> Project:
    """Read THREADLINE_AGENTS: a langgraph.json, or `name=module:attr,…`. Raises ConfigurationError that names it."""
    text = configured.strip()
    if text.endswith(".json"):
        return _langgraph_json((folder / text).resolve())
    sources = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, source = part.partition("=")
        if not (equals and name.strip() and ":" in source):
            raise ConfigurationError(f"THREADLINE_AGENTS: {part!r} is not name=module:attr, nor a langgraph.json")
        sources[_name(name.strip())] = _located(source.strip(), folder)
    # `my_agents:graph` is mostly a file where the worker is started.
    return Project(sources, (folder.resolve(),) if sources else ())


def _langgraph_json(path: Path) -> Project:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"THREADLINE_AGENTS: there is no file {path}") from error
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"THREADLINE_AGENTS: {path} is not a langgraph.json: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("graphs"), dict):
        raise ConfigurationError(f"THREADLINE_AGENTS: {path} is not a langgraph.json: it has no object `graphs`")
    # Whatever else it says is for other servers.
    local, packages = _dependencies(path, told.get("dependencies", []))
    variables, env_file = _environment(path, told.get("env"))
    sources = {_name(name): _graph(path, name, entry) for name, entry in told["graphs"].items()}
    return Project(sources, tuple(_on_path(local)), tuple(packages), variables, env_file)


def _graph(path: Path, name: str, entry: Any) -> str:
    source = entry.get("path") if isinstance(entry, dict) else entry
    if not isinstance(source, str) or ":" not in source:
        raise ConfigurationError(f"THREADLINE_AGENTS: {path}: graph {name!r} is not 'path/to/file.py:attr'")
    return _located(source, path.parent)


def _located(source: str, folder: Path) -> str:
    module, _, attribute = source.rpartition(":")
    is_file = "/" in module or module.endswith((".py", *_NOT_PYTHON))
    return f"{(folder / module).resolve()}:{attribute}" if is_file else source


def _name(name: str) -> str:
    try:
        return check_agent(name)
    except InvalidJob as error:
        raise ConfigurationError(f"THREADLINE_AGENTS: {error}") from error


def _dependencies(path: Path, told: Any) -> tuple[list[Path], list[str]]:
    if not isinstance(told, list) or not all(isinstance(one, str) for one in told):
        raise ConfigurationError(f"THREADLINE_AGENTS: {path}: `dependencies` is not a list of str")
    folders, packages = [], []
    for one in told:
        if not one.startswith("."):
            packages.append(one)
        elif (folder := (path.parent / one).resolve()).is_dir():
            folders.append(folder)
        else:
            raise ConfigurationError(f"THREADLINE_AGENTS: {path}: the dependency {one!r} is no folder there")
    return folders, packages


def _on_path(folders: list[Path]) -> list[Path]:
    """What installing these folders would put on Python's path."""
    found: list[Path] = []
    for folder in folders:
        source = folder / "src"
        if any((folder / name).exists() for name in _PROJECT_FILES):
            found += [source, folder] if source.is_dir() else [folder]
        else:
            # A folder that is a package itself is imported by its own name.
            found += [folder.parent] if (folder / "__init__.py").exists() else [folder]
    return list(dict.fromkeys(found))


def _environment(path: Path, told: Any) -> tuple[dict[str, str], Path | None]:
    if told is None or told == "":
        return {}, None
    if isinstance(told, str):
        return {}, (path.parent / told).resolve()
    if not isinstance(told, dict) or not all(isinstance(value, str | int | float) for value in told.values()):
        # Without the values: they are secrets.
        raise ConfigurationError(f"THREADLINE_AGENTS: {path}: `env` is neither a file's name nor names with values")
    return {name: str(value) for name, value in told.items()}, None
