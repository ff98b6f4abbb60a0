"""`threadline prune`: idle threads are compacted, old jobs and threads go; nothing that is in use is touched."""

from __future__ import annotations

from typing import Final

import click

from threadline.calls.prune import Pruned
from threadline.cli.errors import ExitCode
from threadline.cli.options import checked, json_option
from threadline.cli.output import say, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.age import parse_age

__all__ = ["prune"]

_EPILOG: Final = """\
\b
Examples:
  threadline prune                                     compact what was idle for 30 days
  threadline prune --older-than 7d --jobs 90d --threads 365d
  threadline prune --older-than 30d --waiting --json

Ages are a number and s, m, h, d or w. Exit code 1: some threads could not be compacted.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--older-than", metavar="AGE", default="30d", show_default=True, callback=checked(parse_age),
    help="Compact threads that were idle for so long.",
)  # fmt: skip
@click.option("--keep", type=click.Choice(["latest"]), default="latest", help="What a compacted thread keeps.")
@click.option("--jobs", metavar="AGE", callback=checked(parse_age), help="Also delete jobs that ended so long ago.")
@click.option("--threads", metavar="AGE", callback=checked(parse_age), help="Also delete threads idle for so long.")
@click.option("--waiting", is_flag=True, help="Threads that wait for a person count as idle, too.")
@json_option
def prune(
    *, older_than: float, keep: str, jobs: float | None, threads: float | None, waiting: bool, as_json: bool
) -> int:
    """Compact idle threads to their latest state, and let old jobs and threads go; prints what went."""

    async def body(client: Client) -> Pruned:
        return await client.prune(older_than=older_than, keep=keep, jobs=jobs, threads=threads, waiting=waiting)

    found = with_client(body)
    if as_json:
        write_json(found)
    else:
        rows = ", ".join(f"{count} {table}" for table, count in sorted(found.rows.items()) if count)
        write(f"{found.compacted} threads compacted" + (f" ({rows})" if rows else ""))
        write(f"{found.threads} threads, {found.jobs} jobs and {found.dead_letters} dead letters deleted")
    if found.skipped:
        say(f"{found.skipped} threads were left alone: in use again, or no live worker has their agent")
    for reason in found.reasons:
        say(reason)
    return ExitCode.JOB_FAILED if found.failed else ExitCode.OK
