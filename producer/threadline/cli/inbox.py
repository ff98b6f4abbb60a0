"""`threadline inbox`: everything that waits for a person, longest first, with what is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import click

from threadline.cli.describe import age
from threadline.cli.options import checked, json_option, thread_option
from threadline.cli.output import one_line, say, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.codec import dumps
from threadline.contract.job import check_user_id
from threadline.contract.waiting import Waiting

__all__ = ["inbox"]

_EPILOG: Final = """\
\b
Examples:
  threadline inbox --user 42
  threadline inbox --json | jq -r '.[].thread_id'
"""


@click.command(epilog=_EPILOG)
@click.option("--user", "user_id", metavar="U", callback=checked(check_user_id), help="Only threads of this user.")
@thread_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N", help="At most.")
@json_option
def inbox(user_id: str | None, thread_id: str | None, limit: int, *, as_json: bool) -> None:
    """List what waits for a person, with its questions and its age."""

    async def body(client: Client) -> list[Waiting]:
        return await client.inbox(user_id=user_id, thread_id=thread_id, limit=limit)

    found = with_client(body)
    if as_json:
        write_json(found)
    elif found:
        write("\n".join(line for waiting in found for line in _described(waiting)))
    else:
        say("nothing waits for a person")


def _described(waiting: Waiting) -> Iterator[str]:
    now = datetime.now(UTC)
    left = f", for {age((waiting.expires_at - now).total_seconds())} more" if waiting.expires_at else ""
    yield (
        f"{waiting.thread_id}  {waiting.agent} of {one_line(waiting.user_id, 80)} asks since"
        f" {age((now - waiting.since).total_seconds())}{left} (job {waiting.job_id})"
    )
    for asked in waiting.interrupts:
        yield f"  {one_line(str(asked['id']), 80)}  {one_line(dumps(asked['value']).decode(), 400)}"
    if not waiting.interrupts:
        yield "  at a breakpoint: nothing is asked"
