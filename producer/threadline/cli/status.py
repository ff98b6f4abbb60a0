"""`threadline status`: where a job stands, as the ledger has it."""

from __future__ import annotations

from typing import Final

import click

from threadline.cli.describe import described
from threadline.cli.options import job_argument, json_option, user_option
from threadline.cli.output import write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import JobStatus

__all__ = ["status"]

_EPILOG: Final = """\
\b
Examples:
  threadline status 0b5c8f…
  threadline status 0b5c8f… --json | jq -r .state
"""


@click.command(epilog=_EPILOG)
@job_argument
@user_option
@json_option
def status(job_id: str, user_id: str | None, *, as_json: bool) -> None:
    """Say where a job stands."""

    async def body(client: Client) -> JobStatus:
        return await (await client.job(job_id, user_id=user_id)).status()

    found = with_client(body)
    if as_json:
        write_json(found)
    else:
        write("\n".join(described(found)))
