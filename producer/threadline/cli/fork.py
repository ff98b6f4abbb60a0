"""`threadline fork`: a new thread that begins as another one was."""

from __future__ import annotations

from typing import Final

import click

from threadline.cli.options import agent_option, checked, checkpoint_option, json_option, thread_argument, user_option
from threadline.cli.output import write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import check_thread_id

__all__ = ["fork"]

_EPILOG: Final = """\
\b
Examples:
  threadline fork user-42-session-7
  threadline fork user-42-session-7 --checkpoint 1f1e4c6e-ede3-6763-8001-dee4865d789b --as user-42-other-way
"""


@click.command(epilog=_EPILOG)
@thread_argument
@checkpoint_option
@click.option(
    "--as", "new_thread_id", metavar="NEW", callback=checked(check_thread_id), help="The new thread's id; else made."
)
@agent_option
@user_option
@json_option
def fork(
    *,
    thread_id: str,
    checkpoint_id: str | None,
    new_thread_id: str | None,
    agent: str | None,
    user_id: str | None,
    as_json: bool,
) -> None:
    """Copy THREAD up to a checkpoint (default: its head) into a new thread of its user; prints the new thread's id."""

    async def body(client: Client) -> str:
        return await client.fork(
            thread_id, checkpoint_id=checkpoint_id, new_thread_id=new_thread_id, user_id=user_id, agent=agent
        )

    made = with_client(body)
    if as_json:
        write_json({"thread_id": made})
    else:
        write(made)
