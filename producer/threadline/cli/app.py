"""The command `threadline` as a process: every end has its exit code, and no user error shows a traceback."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from threadline import __version__
from threadline.cli.errors import ExitCode, exit_code
from threadline.cli.lazy import LazyGroup
from threadline.cli.output import hush, say
from threadline.environment import unknown_variables
from threadline.errors import ThreadlineError

__all__ = ["cli", "run"]

#: What the worker extra brings, as it is imported.
_WORKER_MODULES: Final = frozenset({
    "arq", "deepagents", "httpx", "langchain", "langchain_core", "langgraph", "orjson", "prometheus_client", "pypdf",
    "pydantic", "rank_bm25", "standardwebhooks", "structlog", "trafilatura",
})  # fmt: skip
_HELP: Final = """\
Runs long research agents as durable background jobs.

\b
Examples:
  threadline dev                            start servers and workers here
  threadline enqueue research "What is new in PostgreSQL 18?" --watch
  job=$(threadline enqueue research - < question.txt)
  threadline watch $job --json | jq .type   every event as a line of JSON
  threadline result $job > report.md
  threadline doctor                         what is wrong, and what to do
"""
_EPILOG: Final = """\
\b
Servers: REDIS_URL and DATABASE_URL; all other settings are THREADLINE_*.
Exit codes: 0 ok, 1 the job failed or was cancelled, 2 usage, 3 not found,
4 a server is unavailable, 5 waits for a person, 124 timeout, 130 Ctrl-C.
Completion: eval "$(_THREADLINE_COMPLETE=bash_source threadline)"
            (zsh_source for zsh, fish_source for fish)
"""


@click.group(cls=LazyGroup, help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """The group; what it does is in the commands."""
    if context.invoked_subcommand != "doctor":  # which lists them among its checks
        for warning in unknown_variables(os.environ):
            say(f"warning: {warning}")


def run(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command (default: this process's arguments) and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without ✔ gets ?, not a traceback
    code = _code(args)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        hush()
        code = ExitCode.BROKEN_PIPE
    sys.exit(code)


def _code(args: Sequence[str] | None) -> int:
    """A command's int is its exit code, any other value means 0."""
    try:
        value = cli.main(args, prog_name="threadline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        say(_usage(error))
        return error.exit_code
    except click.Abort:  # Ctrl-C
        return ExitCode.CTRL_C
    except ThreadlineError as error:
        if os.environ.get("THREADLINE_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        say(str(error))
        return exit_code(error)
    except ModuleNotFoundError as error:
        # A command of the worker half may import late. A module of the user's own is not for us to explain.
        if (root := (error.name or "").partition(".")[0]) not in _WORKER_MODULES:
            raise
        say(f"this command needs {root}, which is missing: install 'threadline[worker]'")
        return ExitCode.USAGE
    return value if isinstance(value, int) else ExitCode.OK


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    # A command that could not be loaded has no help to look into.
    return f"{message} (see `{context.command_path} --help`)" if context else message
