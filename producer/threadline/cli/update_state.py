"""`threadline update-state`: a thread's state is changed once, while nothing runs on it, or not at all."""

from __future__ import annotations

from typing import Any, Final

import click

from threadline.cli.options import agent_option, checked, json_option, json_value, thread_argument, user_option
from threadline.cli.output import write, write_json
from threadline.cli.session import with_client
from threadline.client import Client

__all__ = ["update_state"]

_EPILOG: Final = """\
\b
Examples:
  threadline update-state user-42-session-7 '{"topic": "PostgreSQL 18"}'
  threadline update-state user-42-session-7 '{"messages": [{"role": "user", "content": "In English."}]}' --as-node model
"""


@click.command("update-state", epilog=_EPILOG)
@thread_argument
@click.argument("values", metavar="JSON", callback=checked(json_value))
@click.option("--as-node", metavar="N", help="As if this node had returned the values; else the last one that ran.")
@agent_option
@user_option
@json_option
def update_state(
    *, thread_id: str, values: Any, as_node: str | None, agent: str | None, user_id: str | None, as_json: bool
) -> None:
    """Change THREAD's state by an object of its keys; prints the new checkpoint's id. Refused while a job is open."""

    async def body(client: Client) -> str:
        return await client.update_state(thread_id, values, as_node=as_node, user_id=user_id, agent=agent)

    made = with_client(body)
    if as_json:
        write_json({"checkpoint_id": made})
    else:
        write(made)
