"""`threadline retry`: the same job goes on from its last checkpoint, or the reason why it cannot."""

from __future__ import annotations

import click

from threadline.cli.options import job_argument, user_option
from threadline.cli.output import write
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.job import Job

__all__ = ["retry"]


@click.command(epilog="\b\nExample:\n  threadline retry 0b5c8f… && threadline watch 0b5c8f…")
@job_argument
@user_option
def retry(job_id: str, user_id: str | None) -> None:
    """Continue a failed or cancelled job from its last checkpoint; prints its id."""

    async def body(client: Client) -> Job:
        return await client.retry(job_id, user_id=user_id)

    write(with_client(body).job_id)
