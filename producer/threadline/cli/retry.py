"""`threadline retry`: the same job goes on from its last checkpoint, or the reason why it cannot."""

from __future__ import annotations

from typing import Final

import click

from threadline.cli.options import job_argument, user_option
from threadline.cli.output import write
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import JobStatus
from threadline.job import Job

__all__ = ["retry"]

_EPILOG: Final = """\
\b
Examples:
  threadline retry 0b5c8f… && threadline watch 0b5c8f…
  threadline retry 0b5c8f… --webhook
"""


@click.command(epilog=_EPILOG)
@job_argument
@user_option
@click.option("--webhook", "report", is_flag=True, help="Do not run the job: send its webhook once more.")
def retry(job_id: str, user_id: str | None, *, report: bool) -> None:
    """Continue a failed or cancelled job from its last checkpoint; prints its id."""

    async def body(client: Client) -> Job | JobStatus:
        return await (client.redeliver if report else client.retry)(job_id, user_id=user_id)

    write(with_client(body).job_id)
