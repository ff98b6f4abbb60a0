"""The files of one route of one user, as `threadline memory` sees them: what is stored is what agents read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from langgraph.store.base import Item, Op, PutOp

from threadline.contract.keys import Keys
from threadline.errors import ConfigurationError
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.settings import ClientSettings
from threadline_worker.memory.files import Document
from threadline_worker.memory.index import store_config
from threadline_worker.memory.moves import moves_of_user
from threadline_worker.memory.routes import Route
from threadline_worker.memory.settings import MemorySettings
from threadline_worker.memory_store import MemoryStore

__all__ = ["Archive", "Change", "Kept", "archive_of", "find_route", "memory_database"]

_PAGE = 200


class Change(NamedTuple):
    """What an import does with a file: `new`, `changed` or `same`."""

    what: str
    path: str


class Kept(NamedTuple):
    """A file in the store; `modified_at` is when it was written last, as ISO 8601."""

    document: Document
    modified_at: str


class Archive:
    """Files of one namespace; a store is told once and closed by `archive_of`."""

    def __init__(self, store: MemoryStore, namespace: tuple[str, ...]) -> None:
        self._store = store
        self._namespace = namespace

    async def files(self) -> list[Kept]:
        """All of them, by path; items that are no files are left out."""
        found: list[Kept] = []
        while True:
            page = await self._store.asearch(self._namespace, limit=_PAGE, offset=len(found))
            found += [_kept(item) for item in page]
            if len(page) < _PAGE:
                break
        return sorted(kept for kept in found if kept.document.encoding)

    async def file(self, path: str) -> Kept | None:
        """One of them; None if there is none."""
        item = await self._store.aget(self._namespace, path)
        kept = _kept(item) if item is not None else None
        return kept if kept is not None and kept.document.encoding else None

    async def put(self, documents: Sequence[Document], *, dry_run: bool) -> list[Change]:
        """Store what differs; equal files are not touched. Nothing expires: what is given is to stay."""
        known = {kept.document.path: kept.document for kept in await self.files()}
        changes = [Change(_what(known.get(document.path), document), document.path) for document in documents]
        pairs = zip(changes, documents, strict=True)
        writes = [document for change, document in pairs if change.what != "same"]
        if not dry_run:
            for start in range(0, len(writes), _PAGE):
                await self._batch([self._write(document) for document in writes[start : start + _PAGE]])
        return changes

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete files; what is not there stays away."""
        await self._batch([PutOp(self._namespace, path, None) for path in paths])

    async def _batch(self, ops: Sequence[Op]) -> None:
        if ops:
            await self._store.abatch(ops)

    def _write(self, document: Document) -> Op:
        now = datetime.now(UTC).isoformat()
        value = {"content": document.content, "encoding": document.encoding, "created_at": now, "modified_at": now}
        return PutOp(self._namespace, document.path, value)


@asynccontextmanager
async def memory_database(url: str, keys: Keys) -> AsyncIterator[Database]:
    """Connections for `threadline memory`. Raises BackendUnavailable."""
    options = f"-c search_path={keys.schema},public"
    async with Database(url, application_name="threadline-memory", limit=60.0, options=options) as database:
        await database.ready()
        yield database


@asynccontextmanager
async def archive_of(
    database: Database, client: ClientSettings, settings: MemorySettings, route: Route, user_id: str | None
) -> AsyncIterator[Archive]:
    """Open a route's files, those under earlier names of the user brought to today's. Raises BackendUnavailable."""
    keys = client.keys
    config, _why = await store_config(database, keys, settings, client.vault)
    store = MemoryStore(database.pool, config)
    try:
        if user_id is not None:
            await store.move(moves_of_user(settings.names, [route], user_id), Queries(keys.schema))
        yield Archive(store, route.namespace(settings.names, user_id))
    finally:
        store.stop()


def find_route(settings: MemorySettings, path: str, user_id: str | None) -> Route:
    """The configured route, with a user if and only if it needs one. Raises ConfigurationError."""
    wanted = f"/{path.strip('/')}/"
    route = next((route for route in settings.routes if route.path == wanted), None)
    if route is None:
        known = ", ".join(route.sentence for route in settings.routes)
        raise ConfigurationError(f"there is no route {wanted}; THREADLINE_MEMORY_ROUTES has {known}")
    if route.kind == "disk":
        raise ConfigurationError(f"{wanted} is the folder {route.root} on disk: copy the files there")
    if (route.kind == "user") != (user_id is not None):
        raise ConfigurationError(
            f"{wanted} is {'per user: give --user' if user_id is None else 'shared: leave --user out'}"
        )
    return route


def _kept(item: Item) -> Kept:
    value: dict[str, Any] = item.value
    content = value.get("content")
    encoding = value.get("encoding", "utf-8") if isinstance(content, str) else ""
    return Kept(Document(item.key, str(content), str(encoding)), item.updated_at.isoformat())


def _what(known: Document | None, document: Document) -> str:
    return "new" if known is None else "same" if known == document else "changed"
