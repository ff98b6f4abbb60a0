"""`threadline history`: a thread's checkpoints, newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from threadline.cli.options import agent_option, checked, json_option, thread_argument, user_option
from threadline.cli.output import columns, one_line, say, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import check_id

__all__ = ["history"]

_EPILOG: Final = """\
\b
Examples:
  threadline history user-42-session-7
  threadline history user-42-session-7 --limit 100 --json | jq -r '.[].checkpoint_id'
"""


@click.command(epilog=_EPILOG)
@thread_argument
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="At most.")
@click.option(
    "--before", metavar="ID", callback=checked(lambda value: check_id("checkpoint id", value)), help="Older than this."
)
@agent_option
@user_option
@json_option
def history(
    thread_id: str, limit: int, before: str | None, agent: str | None, user_id: str | None, *, as_json: bool
) -> None:
    """List THREAD's checkpoints: id, moment, step, and what comes next. A live worker reads them."""

    async def body(client: Client) -> list[dict[str, Any]]:
        return await client.history(thread_id, limit=limit, before=before, user_id=user_id, agent=agent)

    found = with_client(body)
    if as_json:
        write_json(found)
    elif found:
        write("\n".join(_lines(found)))
    else:
        say("no checkpoint" if before is None else "no older checkpoint")


def _lines(found: list[dict[str, Any]]) -> Iterator[str]:
    for entry in found:
        step = "" if entry["step"] is None else str(entry["step"])
        source = one_line(str(entry["metadata"].get("source", "")), 10)
        following = one_line(", ".join(entry["next"]), 120)
        yield (
            f"{entry['checkpoint_id']}  {str(entry['created_at'])[:19]}  {step:>5}"
            f"  {source}{' ' * (6 - columns(source))}  {following or '–'}"
        )
