"""A command is imported when it is called; help and completion read the catalogue alone."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from threadline.cli.catalogue import COMMANDS, GROUP, SECTIONS
from threadline.cli.errors import ExitCode
from threadline.cli.output import hush

__all__ = ["LazyGroup", "MissingExtra"]


class MissingExtra(click.UsageError):
    """A command's code is not installed; the message says what to install. Exit code 2."""


class LazyGroup(click.Group):
    """The commands of the catalogue."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the catalogue's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command. Raises MissingExtra."""
        if (entry := COMMANDS.get(cmd_name)) is None:
            return None
        if entry.home is None:
            return _from_worker_half(cmd_name)
        module, _, attribute = entry.home.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the catalogue is ours
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"no command {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that has gone ends it silently."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            hush()
            ctx.exit(ExitCode.BROKEN_PIPE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The catalogue, section by section."""
        for section in SECTIONS:
            with formatter.section(section):
                formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names without importing anything."""
        names = [CompletionItem(n, help=e.help) for n, e in COMMANDS.items() if n.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


def _from_worker_half(name: str) -> click.Command:
    # Reading the installed distributions takes milliseconds that light commands need not pay.
    from importlib.metadata import entry_points  # noqa: PLC0415

    found = entry_points(group=GROUP, name=name)
    if not found:
        raise MissingExtra(f"`{name}` is not part of this installation: install 'threadline[worker]'")
    try:
        command = next(iter(found)).load()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("threadline"):
            raise MissingExtra(
                f"`{name}`: this installation is not whole, {error.name} is missing: install threadline again"
            ) from error
        raise MissingExtra(f"`{name}` needs {error.name}, which is missing: install 'threadline[worker]'") from error
    assert isinstance(command, click.Command)  # noqa: S101 - the group's meaning
    return command
