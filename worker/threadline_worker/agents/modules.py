"""Imports a graph's module under the name that it has in its own project, on every worker the same.

State that names a class is read back by the class's module (strict_types), also by another worker and by the program
that the module comes from. What a failed import left behind is forgotten, so that a mended file is read anew.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from threadline_worker.agents.errors import AgentConfigError

__all__ = ["forget", "import_attribute", "local_modules", "missing_packages", "missing_types", "modified"]

_OURS = frozenset({"threadline", "threadline_worker"})


def import_attribute(source: str, paths: Iterable[Path]) -> Any:
    """What `module:attr` or `/path/file.py:attr` names. Raises AgentConfigError, and whatever the module raises."""
    where, _, attribute = source.rpartition(":")
    importlib.invalidate_caches()
    _extend_path(paths)
    found: Any = _import_file(Path(where), list(paths)) if "/" in where else importlib.import_module(where)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def local_modules() -> dict[str, ModuleType]:
    """What is imported from files outside Python's own folders and those of installed packages."""
    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    return {
        name: module
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
        and not file.startswith(installed)
        and name.partition(".")[0] not in _OURS
    }


def forget(modules: Iterable[str]) -> None:
    """Import these anew when they are next asked for; who has them keeps them."""
    for name in modules:
        sys.modules.pop(name, None)


def missing_packages(required: Iterable[str]) -> list[str]:
    """Those requirements (as pip has them) that no installed package meets."""
    return [text for text in required if not _is_installed(text)]


def missing_types(declared: Iterable[tuple[str, ...]]) -> list[str]:
    """Those classes, as `module:Class`, that cannot be imported."""
    return [":".join(one) for one in sorted(declared) if not _is_there(*one)]


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name)
    except (Exception, SystemExit):  # noqa: BLE001 - a module is anyone's code; that it fails is the answer
        return False


def _is_installed(text: str) -> bool:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:  # an URL or an option of pip: nobody can say
        return True
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _extend_path(paths: Iterable[Path]) -> None:
    # Behind what is there: a project's `redis.py` must not take the place of a package that the worker needs.
    sys.path += [text for path in paths if (text := str(path)) not in sys.path]


def _import_file(path: Path, paths: list[Path]) -> ModuleType:
    if path.suffix != ".py":
        raise AgentConfigError(f"{path} is no Python file: Threadline runs graphs in Python")
    if not path.is_file():
        raise AgentConfigError(f"there is no Python file {path}")
    root = _root(path, paths)
    # The file's own folder, too: its neighbours are imported from there, as when Python runs the file itself.
    _extend_path([root] if (path.parent / "__init__.py").exists() else [root, path.parent])
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if all(part.isidentifier() for part in name.split(".")):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path:
            return importlib.import_module(name)
    # Something else has that name. This one is the same wherever the project lies.
    told = "/".join(parts) if root in paths else str(path)
    return _import_as(f"threadline_project_{path.stem}_{hashlib.sha256(told.encode()).hexdigest()[:12]}", path)


def _root(path: Path, paths: list[Path]) -> Path:
    """The folder on Python's path that the file is imported from."""
    folder = path.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    if folder != path.parent:
        return folder
    within = [known for known in paths if path.is_relative_to(known)]
    return max(within, key=lambda known: len(known.parts), default=folder)


def _import_as(name: str, path: Path) -> ModuleType:
    if (known := sys.modules.get(name)) is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AgentConfigError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def modified(name: str) -> int | None:
    """When the file of an imported module was last changed, in ns; None if nobody knows."""
    try:
        return Path(str(sys.modules[name].__file__)).stat().st_mtime_ns
    except (KeyError, OSError):
        return None
