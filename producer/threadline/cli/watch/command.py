"""`threadline watch`: ends when the job ends; Ctrl-C ends the watching and nothing else."""

from __future__ import annotations

from typing import Final

import click

from threadline.cli.errors import ExitCode
from threadline.cli.options import checked, job_argument, user_option
from threadline.cli.output import say
from threadline.cli.session import with_client
from threadline.cli.watch.following import follow_job
from threadline.client import Client
from threadline.contract.events import EventId
from threadline.errors import InvalidJob

__all__ = ["watch"]

_EPILOG: Final = """\
\b
Examples:
  threadline watch 0b5c8f…
  threadline watch 0b5c8f… --json | jq -r .type
  threadline watch 0b5c8f… --after 2-17 --json >> events.ndjson
"""


def _position(value: str) -> str:
    try:
        return str(EventId.parse(value))
    except ValueError as error:
        raise InvalidJob(str(error)) from error


@click.command(epilog=_EPILOG)
@job_argument
@click.option("--after", metavar="ID", callback=checked(_position), help="Only events behind this id, like 2-17.")
@user_option
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON (NDJSON).")
def watch(job_id: str, after: str | None, user_id: str | None, *, as_json: bool) -> int:
    """Follow a job until it ends; the exit code says how.

    On a terminal it draws what the agent is doing; piped, or with NO_COLOR, it prints a line for each thing that
    happens. Ctrl-C stops watching and cancels nothing.
    """

    async def body(client: Client) -> int:
        return await follow_job(client, await client.job(job_id, user_id=user_id), after=after, as_json=as_json)

    try:
        return with_client(body)
    except KeyboardInterrupt:
        say(f"stopped watching; job {job_id} goes on")
        return ExitCode.CTRL_C
