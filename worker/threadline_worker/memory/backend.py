"""The files of a deep agent: those under a persistent route outlive the thread, all others end with it.

What cannot be done (a read-only route, a path that leads out, what Postgres cannot hold) is an answer to the agent,
never an exception that would end its run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deepagents.backends import CompositeBackend, FilesystemBackend, StateBackend, StoreBackend
from deepagents.backends.protocol import (
    BackendProtocol,
    DeleteResult,
    EditResult,
    FileUploadResponse,
    ReadResult,
    WriteResult,
)
from langgraph.runtime import Runtime

from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import Route, check_folders, parse_routes, routes_from_env
from threadline_worker.memory.text import problem
from threadline_worker.memory.user import user_of_run

__all__ = ["threadline_backend"]

_REFUSED = "Error: this folder is read-only for you; write your file to another folder."


def threadline_backend(
    routes: str | Iterable[Route] | None = None,
    *,
    default: BackendProtocol | None = None,
    env: Mapping[str, str] = os.environ,
) -> CompositeBackend:
    """The backend for `create_deep_agent(backend=…)` with the persistent routes that the operator has configured.

    `routes` in the form of THREADLINE_MEMORY_ROUTES replaces the environment's. `default` holds all other files:
    deepagents' StateBackend, so that they end with the thread. Raises ConfigurationError.
    """
    names = UserNames.from_env(env)
    if routes is None:
        routes = routes_from_env(env)
    chosen = parse_routes(routes) if isinstance(routes, str) else tuple(routes)
    check_folders(chosen)
    return CompositeBackend(
        default=default if default is not None else StateBackend(),
        routes={route.path: _backend(route, names) for route in chosen},
    )


def _backend(route: Route, names: UserNames) -> BackendProtocol:
    if route.root is not None:
        return (DiskFolder if route.writable else ReadOnlyDiskFolder)(root_dir=route.root, virtual_mode=True)

    def namespace(runtime: Runtime[Any]) -> tuple[str, ...]:
        return route.namespace(names, user_of_run(runtime) if route.kind == "user" else None)

    # No store of its own: it takes the run's, which carries the fence.
    return (StoreFolder if route.writable else ReadOnlyStoreFolder)(namespace=namespace)


class StoreFolder(StoreBackend):
    """A folder in the store that answers where Postgres would raise."""

    def read(self, file_path: str, offset: int = 0, limit: int = 2000) -> ReadResult:
        """Read a file."""
        refused = problem(file_path)
        return ReadResult(error=f"Error: {refused}") if refused else super().read(file_path, offset, limit)

    async def aread(self, file_path: str, offset: int = 0, limit: int = 2000) -> ReadResult:
        """Read a file."""
        refused = problem(file_path)
        return ReadResult(error=f"Error: {refused}") if refused else await super().aread(file_path, offset, limit)

    def write(self, file_path: str, content: str) -> WriteResult:
        """Write a file."""
        refused = problem(file_path, content)
        return WriteResult(error=f"Error: {refused}") if refused else super().write(file_path, content)

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        """Write a file."""
        refused = problem(file_path, content)
        return WriteResult(error=f"Error: {refused}") if refused else await super().awrite(file_path, content)

    def edit(
        self,
        file_path: str,
        old_string: str,
        new_string: str,
        replace_all: bool = False,  # noqa: FBT002 - deepagents' signature
    ) -> EditResult:
        """Replace text in a file."""
        refused = problem(file_path, new_string)
        if refused:
            return EditResult(error=f"Error: {refused}")
        return super().edit(file_path, old_string, new_string, replace_all)

    async def aedit(
        self,
        file_path: str,
        old_string: str,
        new_string: str,
        replace_all: bool = False,  # noqa: FBT002 - deepagents' signature
    ) -> EditResult:
        """Replace text in a file."""
        refused = problem(file_path, new_string)
        if refused:
            return EditResult(error=f"Error: {refused}")
        return await super().aedit(file_path, old_string, new_string, replace_all)


class DiskFolder(FilesystemBackend):
    """A folder on disk. A path or a link that leads out of it is refused; disk is outside the fence (F2)."""

    def _resolve_path(self, key: str) -> Path:
        # Every operation asks here first, and answers an OSError; of a ValueError most of them know nothing.
        try:
            return super()._resolve_path(key)
        except ValueError:
            # Its message names the folder on disk, which is not the agent's concern.
            raise PermissionError("the path leads out of its folder or is malformed") from None


class _ReadOnly(BackendProtocol):
    """Refuses whatever writes; stands before a backend among the bases of a class."""

    def write(self, file_path: str, content: str) -> WriteResult:  # noqa: ARG002 - deepagents' signature
        return WriteResult(error=_REFUSED)

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        return self.write(file_path, content)

    def edit(
        self,
        file_path: str,  # noqa: ARG002 - deepagents' signature
        old_string: str,  # noqa: ARG002
        new_string: str,  # noqa: ARG002
        replace_all: bool = False,  # noqa: ARG002, FBT002
    ) -> EditResult:
        return EditResult(error=_REFUSED)

    async def aedit(
        self,
        file_path: str,
        old_string: str,
        new_string: str,
        replace_all: bool = False,  # noqa: FBT002 - deepagents' signature
    ) -> EditResult:
        return self.edit(file_path, old_string, new_string, replace_all)

    def delete(self, file_path: str) -> DeleteResult:  # noqa: ARG002 - deepagents' signature
        return DeleteResult(error=_REFUSED)

    async def adelete(self, file_path: str) -> DeleteResult:
        return self.delete(file_path)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return [FileUploadResponse(path=path, error="permission_denied") for path, _ in files]

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return self.upload_files(files)


class ReadOnlyStoreFolder(_ReadOnly, StoreFolder):
    """A folder in the store that agents may only read; `threadline memory import` fills it."""


class ReadOnlyDiskFolder(_ReadOnly, DiskFolder):
    """A folder on disk that agents may only read."""
