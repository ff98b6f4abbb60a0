"""`threadline memory`: what agents remember, in the operator's hands; loaded only when it is called."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from threadline.cli.errors import ExitCode
from threadline.cli.options import json_option, user_option
from threadline.cli.output import is_drawn, one_line, say, write, write_json
from threadline.errors import ConfigurationError
from threadline.settings import ClientSettings

if TYPE_CHECKING:
    from threadline.ledger.database import Database
    from threadline_worker.memory.archive import Archive
    from threadline_worker.memory.settings import MemorySettings

__all__ = ["memory"]

T = TypeVar("T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_EPILOG: Final = """\
\b
Examples:
  threadline memory import ./profile --user ann@example.org --route /memories/ --dry-run
  threadline memory list --user ann@example.org
  threadline memory show /orders.md --user ann@example.org
  threadline memory export ./backup --route /knowledge/
"""
_route_option: Decorator = click.option(
    "--route", "route", metavar="PATH", default="/memories/", show_default=True, help="One of THREADLINE_MEMORY_ROUTES."
)
_dry_run_option: Decorator = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_path_argument: Decorator = click.argument("path")


@click.group(epilog=_EPILOG)
def memory() -> None:
    """List, seed, save and delete what agents remember."""


@memory.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@user_option
@_route_option
@_dry_run_option
def import_(folder: Path, user_id: str | None, route: str, *, dry_run: bool) -> None:
    """Store the files of FOLDER; repeating it changes nothing. Prints `new`, `changed` or `same` and the path."""
    from threadline_worker.memory.files import read_folder  # noqa: PLC0415 - nothing is loaded before it is needed

    documents, refused = read_folder(folder)
    if refused:
        more = f" (and {len(refused) - 5} more)" if len(refused) > 5 else ""  # noqa: PLR2004 - a screenful is enough
        raise ConfigurationError(f"nothing was imported: {'; '.join(refused[:5])}{more}")

    async def body(archive: Archive) -> Any:
        return await archive.put(documents, dry_run=dry_run)

    for change in _with_archive(route, user_id, body):
        write(f"{change.what}\t{one_line(change.path)}")


@memory.command()
@click.argument("folder", type=click.Path(path_type=Path))
@user_option
@_route_option
def export(folder: Path, user_id: str | None, route: str) -> None:
    """Write the files of a route to FOLDER; prints what was written."""
    from threadline_worker.memory.files import write_folder  # noqa: PLC0415

    files = _with_archive(route, user_id, lambda archive: archive.files())
    for path in write_folder(folder, [kept.document for kept in files]):
        write(str(path))


@memory.command("list")
@user_option
@_route_option
@json_option
def list_(user_id: str | None, route: str, *, as_json: bool) -> None:
    """List files: path, bytes, last change. JSON: an array of {path, bytes, encoding, modified_at}."""
    files = _with_archive(route, user_id, lambda archive: archive.files())
    rows = [
        {
            "path": kept.document.path,
            "bytes": len(kept.document.data),
            "encoding": kept.document.encoding,
            "modified_at": kept.modified_at,
        }
        for kept in files
    ]
    if as_json:
        write_json(rows)
        return
    for row in rows:
        write(f"{one_line(str(row['path']))}\t{row['bytes']}\t{row['modified_at']}")


@memory.command()
@_path_argument
@user_option
@_route_option
def show(path: str, user_id: str | None, route: str) -> int:
    """Print a file as it is. Exit code 3 if there is none."""
    from threadline_worker.memory.files import checked_path  # noqa: PLC0415

    plain = checked_path(path)
    found = _with_archive(route, user_id, lambda archive: archive.file(plain))
    if found is None:
        say(f"there is no {plain} in {route}: `threadline memory list` shows what there is")
        return ExitCode.NOT_FOUND
    if found.document.encoding == "utf-8" and is_drawn():
        # What an agent wrote must not steer the terminal.
        from threadline.cli.output import clean  # noqa: PLC0415

        write(clean(found.document.content))
    else:
        sys.stdout.buffer.write(found.document.data)
        sys.stdout.buffer.flush()
    return ExitCode.OK


@memory.command()
@click.argument("paths", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All files of the route.")
@user_option
@_route_option
@_dry_run_option
def delete(paths: tuple[str, ...], user_id: str | None, route: str, *, everything: bool, dry_run: bool) -> int:
    """Delete files; prints what is gone. Exit code 3, and nothing deleted, if one of PATHS does not exist."""
    from threadline_worker.memory.files import checked_path  # noqa: PLC0415

    if bool(paths) == everything:
        raise click.UsageError("give the paths to delete, or --all")
    wanted = {checked_path(path) for path in paths}

    async def body(archive: Archive) -> tuple[list[str], set[str]]:
        known = {kept.document.path for kept in await archive.files()}
        chosen = sorted(known if everything else wanted)
        if not dry_run and wanted <= known:
            await archive.delete(chosen)
        return chosen, wanted - known

    gone, missing = _with_archive(route, user_id, body)
    if missing:
        say(f"there is no {', '.join(sorted(missing))} in {route}: nothing was deleted")
        return ExitCode.NOT_FOUND
    for path in gone:
        write(one_line(path))
    return ExitCode.OK


@memory.command()
@click.option("--rebuild", is_flag=True, help="Forget all vectors first: after a change of the model.")
def index(*, rebuild: bool) -> int:
    """Index now what has no vector yet, which workers do from time to time; prints how many files."""

    async def body(database: Database, client: ClientSettings, settings: MemorySettings) -> int:
        from threadline_worker.memory.index import drop_index, set_up_index, store_config  # noqa: PLC0415
        from threadline_worker.memory.keeper import Keeper  # noqa: PLC0415

        if not settings.embeddings:
            raise ConfigurationError("THREADLINE_STORE_EMBEDDINGS is not set: nothing is indexed without a model")
        if rebuild:
            await drop_index(database, client.keys)
        why = await set_up_index(database, client.keys, settings, client.vault)
        if why is not None:
            raise ConfigurationError(why)
        config, _ = await store_config(database, client.keys, settings, client.vault)
        done = await Keeper(database, client.keys, config, interval=settings.sweep_seconds).round()
        if done is None:
            say("a worker is at it just now")
            return ExitCode.OK
        write(f"{done[1]} indexed")
        return ExitCode.OK

    return _with_database(body)


@memory.command()
@user_option
@_dry_run_option
def rekey(user_id: str | None, *, dry_run: bool) -> None:
    """Move items from earlier names of users to today's (THREADLINE_USER_HASH_KEYS): of one user, or all of the ledger.

    Prints the namespaces that are moved, old and new.
    """

    async def body(database: Database, client: ClientSettings, settings: MemorySettings) -> Any:
        from threadline_worker.memory.rekey import rekey_users  # noqa: PLC0415

        return await rekey_users(database, client, settings.names, user_id, dry_run=dry_run)

    for old, new in _with_database(body):
        write(f"{old}\t{new}")


def _with_archive(path: str, user_id: str | None, body: Callable[[Archive], Awaitable[T]]) -> T:
    async def on(database: Database, client: ClientSettings, settings: MemorySettings) -> T:
        from threadline_worker.memory.archive import archive_of, find_route  # noqa: PLC0415

        route = find_route(settings, path, user_id)
        async with archive_of(database, client, settings, route, user_id) as archive:
            return await body(archive)

    return _with_database(on)


def _with_database(body: Callable[[Database, ClientSettings, MemorySettings], Awaitable[T]]) -> T:
    """Run with connections to DATABASE_URL. Raises ConfigurationError, BackendUnavailable, NotMigrated."""
    from threadline_worker.memory.archive import memory_database  # noqa: PLC0415
    from threadline_worker.memory.settings import MemorySettings  # noqa: PLC0415
    from threadline_worker.telemetry.logs import configure_logs  # noqa: PLC0415

    configure_logs("warning")
    client, settings = ClientSettings.from_env(), MemorySettings.from_env(os.environ)
    if not client.database_url:
        raise ConfigurationError("DATABASE_URL is not set: set it, or run `threadline dev`, which prints one")

    async def run(url: str) -> T:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(memory_database(url, client.keys))
            return await body(database, client, settings)

    return asyncio.run(run(client.direct_url or client.database_url))
