"""`threadline cancel`: a queued job ends at once, a running one is asked to; what has ended stays as it is."""

from __future__ import annotations

import click

from threadline.cli.options import job_argument, user_option
from threadline.cli.output import say, write
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import JobStatus
from threadline.contract.states import State

__all__ = ["cancel"]


@click.command(epilog="\b\nExample:\n  threadline cancel 0b5c8f… --rollback")
@job_argument
@click.option("--rollback", is_flag=True, help="Also take back what the job did to its thread.")
@user_option
def cancel(job_id: str, user_id: str | None, *, rollback: bool) -> None:
    """Stop a queued or running job; prints its state.

    `running` means that the worker was asked and will stop soon; a job that has ended stays as it is.
    """

    async def body(client: Client) -> JobStatus:
        return await (await client.job(job_id, user_id=user_id)).cancel(rollback=rollback)

    status = with_client(body)
    write(str(status.state))
    if status.state is State.RUNNING:
        say(f"job {job_id} was asked to stop")
