"""`threadline delete-user`: everything of a user goes, and what is left is counted; it asks before it begins."""

from __future__ import annotations

import sys
from typing import Final

import click

from threadline.calls.erase import Deleted
from threadline.cli.errors import ExitCode
from threadline.cli.options import checked, json_option
from threadline.cli.output import one_line, say, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import check_user_id

__all__ = ["delete_user"]

_EPILOG: Final = """\
\b
Examples:
  threadline delete-user ann@example.org
  threadline delete-user 42 --yes --json

Exit codes: 0 nothing is left; 4 a server is away: repeat it, or leave the rest of Redis to the workers.
"""


@click.command("delete-user", epilog=_EPILOG)
@click.argument("user_id", metavar="USER", callback=checked(check_user_id))
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete_user(user_id: str, *, yes: bool, as_json: bool) -> int:
    """Erase everything of USER: threads, memory, jobs, progress, queued messages. It cannot be undone.

    Prints what each table and Redis had, and has left (0). Jobs of theirs that run are stopped.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this erases all that the user has: give --yes")
        click.confirm(f"Erase everything of user {one_line(user_id)}?", abort=True, err=True)

    async def body(client: Client) -> Deleted:
        return await client.delete_user(user_id)

    found = with_client(body)
    if as_json:
        write_json(found)
    else:
        for table in sorted({*found.erased, *found.left}):
            write(f"{table}\t{found.erased.get(table, 0)} erased\t{found.left.get(table, 0)} left")
    if found.finished:
        return ExitCode.OK
    say(f"{found.waiting_for}: workers finish it once Redis is there; Postgres has nothing left")
    return ExitCode.UNAVAILABLE
