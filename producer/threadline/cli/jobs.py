"""`threadline jobs`: the newest jobs, one a line."""

from __future__ import annotations

import shutil
import sys
from typing import Final

import click

from threadline.cli.describe import table
from threadline.cli.options import checked, json_option, thread_option
from threadline.cli.output import say, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import JobStatus, check_user_id
from threadline.contract.queues import check_queue
from threadline.contract.states import State

__all__ = ["jobs"]

_EPILOG: Final = """\
\b
Examples:
  threadline jobs --state running
  threadline jobs --user 42 --limit 5 --json | jq -r '.[].job_id'
"""


@click.command(epilog=_EPILOG)
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only jobs in this state.")
@thread_option
@click.option("--user", "user_id", metavar="U", callback=checked(check_user_id), help="Only jobs of this user.")
@click.option("--queue", metavar="Q", callback=checked(check_queue), help="Only jobs of this queue.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N", help="At most.")
@json_option
def jobs(*, limit: int, as_json: bool, **matching: str | None) -> None:
    """List jobs, newest first."""

    async def body(client: Client) -> list[JobStatus]:
        return await client.jobs(limit=limit, **matching)

    found = with_client(body)
    if as_json:
        write_json(found)
    elif found:
        # A file or a pipe gets whole lines, a terminal as much as it can show.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        write("\n".join(table(found, width)))
    else:
        say("no job matches")
