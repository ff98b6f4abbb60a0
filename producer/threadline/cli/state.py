"""`threadline state`: a thread's values, at its head or at a checkpoint."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from threadline.cli.options import agent_option, checkpoint_option, json_option, thread_argument, user_option
from threadline.cli.output import clean, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client

__all__ = ["state"]

_EPILOG: Final = """\
\b
Examples:
  threadline state user-42-session-7
  threadline state user-42-session-7 --checkpoint 1f1e4c6e-ede3-6763-8001-dee4865d789b
  threadline state user-42-session-7 --json | jq .values.messages
"""


@click.command(epilog=_EPILOG)
@thread_argument
@checkpoint_option
@agent_option
@user_option
@json_option
def state(thread_id: str, checkpoint_id: str | None, agent: str | None, user_id: str | None, *, as_json: bool) -> None:
    """Print THREAD's state as a live worker reads it, also while a job runs."""

    async def body(client: Client) -> dict[str, Any]:
        return await client.state(thread_id, checkpoint_id=checkpoint_id, user_id=user_id, agent=agent)

    found = with_client(body)
    if as_json:
        write_json(found)
    else:
        write(clean(json.dumps(found, indent=2, ensure_ascii=False)))
