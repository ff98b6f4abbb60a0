"""`threadline watch`: ends when the job ends; Ctrl-C ends the watching and nothing else."""

from __future__ import annotations

from typing import Final

import click

from threadline.cli.errors import ExitCode
from threadline.cli.options import checked, user_option
from threadline.cli.output import is_drawn, say
from threadline.cli.session import with_client
from threadline.cli.watch.following import follow_job
from threadline.cli.watch.thread import follow_thread
from threadline.cli.watch.trail import Trail
from threadline.client import Client
from threadline.contract.events import EventId
from threadline.contract.job import check_id, check_thread_id
from threadline.errors import InvalidJob

__all__ = ["watch"]

_EPILOG: Final = """\
\b
Examples:
  threadline watch 0b5c8f…
  threadline watch 0b5c8f… --json | jq -r .type
  threadline watch 0b5c8f… --after 2-17 --json >> events.ndjson
  threadline watch --thread user-42-session-7
"""


@click.command(epilog=_EPILOG)
@click.argument("job_id", metavar="JOB", required=False, callback=checked(lambda value: check_id("job id", value)))
@click.option(
    "--thread", "thread_id", metavar="T", callback=checked(check_thread_id), help="Follow all jobs of this thread."
)
@click.option("--after", metavar="ID", help="Only events behind this id, like 2-17; with --thread JOB/ID.")
@user_option
@click.option("--plain", is_flag=True, help="Lines instead of a picture, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON (NDJSON).")
def watch(
    job_id: str | None, thread_id: str | None, after: str | None, user_id: str | None, *, plain: bool, as_json: bool
) -> int:
    """Follow a job until it ends; the exit code says how. With --thread: all jobs of a thread, until Ctrl-C.

    On a terminal it draws what the agent is doing; piped or with --plain, it prints a line for each thing that
    happens. Ctrl-C stops watching and cancels nothing.
    """
    if (job_id is None) == (thread_id is None):
        raise click.UsageError("give a JOB or --thread T, one of them")
    position = None if after is None else _position(after, of_thread=thread_id is not None)
    trail = Trail()

    async def body(client: Client) -> int:
        if thread_id is not None:
            await follow_thread(client, thread_id, trail, user_id=user_id, after=position, as_json=as_json, plain=plain)
            return ExitCode.OK
        job = await client.job(job_id or "", user_id=user_id)
        return await follow_job(client, job, trail, after=position, as_json=as_json, plain=plain)

    try:
        return with_client(body)
    except KeyboardInterrupt:
        exact = as_json or plain or not is_drawn()
        what = f"job {job_id} goes on" if job_id else f"thread {thread_id} goes on"
        back = trail.command(job_id or thread_id or "", thread=job_id is None, exact=exact)
        say(f"stopped watching; {what}. Come back with: {back}")
        return ExitCode.CTRL_C


def _position(value: str, *, of_thread: bool) -> str:
    """An event id, behind `JOB/` for a thread. Raises BadParameter."""
    job, slash, event_id = value.rpartition("/")
    if bool(slash) != of_thread:
        wanted = "JOB/ID, for example 0b5c8f/2-17" if of_thread else "an event id, for example 2-17"
        raise click.BadParameter(
            f"a position in a {'thread' if of_thread else 'job'} is {wanted}", param_hint="'--after'"
        )
    try:
        return f"{check_id('job id', job) if of_thread else ''}{slash}{EventId.parse(event_id)}"
    except (InvalidJob, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="'--after'") from error
