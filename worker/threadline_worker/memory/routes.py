"""Which folders of an agent outlive their thread, whose they are and who may write: read from one variable.

`THREADLINE_MEMORY_ROUTES=/memories/=user:rw,/knowledge/=shared:r,/project/=disk:/srv/project:r`
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from threadline.errors import ConfigurationError
from threadline_worker.memory.names import UserNames

__all__ = ["DEFAULT_ROUTES", "Route", "check_folders", "label_of", "parse_routes", "routes_from_env"]

VARIABLE = "THREADLINE_MEMORY_ROUTES"
DEFAULT_ROUTES = "/memories/=user:rw"
#: ASCII only: a folder that merely looks like a route must not be one.
_PATH = re.compile(r"/(?:[A-Za-z0-9_-]+/)+")
#: deepagents' own artefacts, which belong to the thread; LangGraph keeps this root namespace for itself.
_RESERVED = ("/large_tool_results/", "/conversation_history/", "/blobs/", "/langgraph/")
#: The second label of a shared route; no user's name, for those are hexadecimal digits.
_SHARED = "shared"


class Route(NamedTuple):
    """A persistent folder. `path` begins and ends with a slash; `root` is the folder on disk of a `disk` route."""

    path: str
    kind: Literal["user", "shared", "disk"]
    writable: bool
    root: Path | None = None

    def namespace(self, names: UserNames, user_id: str | None) -> tuple[str, str]:
        """Where the route's items are in the store. Raises ValueError for a disk route, or without the user it needs.

        Falling back to a shared name would show one user's memory to another.
        """
        if self.kind == "shared":
            return (label_of(self.path), _SHARED)
        if self.kind == "user" and user_id is not None:
            return (label_of(self.path), names.name(user_id))
        raise ValueError(f"{self.path} is a {self.kind} route: its items have no place in the store without a user")

    @property
    def sentence(self) -> str:
        """What an agent is told of it."""
        whose = {"user": "this user's", "shared": "shared by all users", "disk": "on disk"}[self.kind]
        return f"{self.path} ({whose}, {'read and write' if self.writable else 'read only'})"


def label_of(path: str) -> str:
    """The first label of a route's namespace; `:` cannot stand in a route's path, so no two routes share one."""
    return path.strip("/").replace("/", ":")


def routes_from_env(env: Mapping[str, str] = os.environ) -> tuple[Route, ...]:
    """The routes of THREADLINE_MEMORY_ROUTES, `/memories/` alone by default. Raises ConfigurationError."""
    return parse_routes(env.get(VARIABLE, "").strip() or DEFAULT_ROUTES)


def parse_routes(text: str) -> tuple[Route, ...]:
    """Read `PATH=KIND:MODE,…`. Raises ConfigurationError that says what is wrong."""
    routes = tuple(_route(part) for part in filter(None, (piece.strip() for piece in text.split(","))))
    for place, route in enumerate(routes):
        for other in routes[:place]:
            if route.path.startswith(other.path) or other.path.startswith(route.path):
                raise ConfigurationError(
                    f"{VARIABLE}: {other.path} and {route.path} overlap: give each route a folder of its own"
                )
    return routes


def check_folders(routes: Iterable[Route]) -> None:
    """Where agents run, the folders of disk routes exist. Raises ConfigurationError."""
    for route in routes:
        if route.root is not None and not route.root.is_dir():
            raise ConfigurationError(f"{VARIABLE}: {route.path}: there is no folder {route.root}: make it, or mount it")


def _route(part: str) -> Route:
    path, equals, target = part.partition("=")
    kind, colon, rest = target.partition(":")
    root, _, mode = rest.rpartition(":")
    known = (kind in ("user", "shared") and not root) or (kind == "disk" and root)
    if not (equals and colon and known and mode in ("r", "rw")):
        raise ConfigurationError(
            f"{VARIABLE}: {part!r} is not PATH=user:MODE, PATH=shared:MODE or PATH=disk:FOLDER:MODE with MODE r or rw"
        )
    if not _PATH.fullmatch(path) or path.startswith(_RESERVED):
        raise ConfigurationError(
            f"{VARIABLE}: {path!r} cannot be a route: use a path such as /memories/ with a slash at both ends, of"
            f" letters, digits, _ and -, and none of {', '.join(_RESERVED)}"
        )
    if kind == "disk":
        return Route(path, "disk", mode == "rw", _folder(path, root))
    return Route(path, "user" if kind == "user" else "shared", mode == "rw")


def _folder(path: str, root: str) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_absolute():
        raise ConfigurationError(f"{VARIABLE}: {path}=disk:{root}: give the absolute path of a folder (no `,` in it)")
    return folder
