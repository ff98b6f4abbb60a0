"""`threadline result`: the report itself when piped, a page to read on a terminal, any other result as JSON."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from threadline.cli.options import job_argument, json_option, user_option
from threadline.cli.output import clean, is_drawn, write, write_json
from threadline.cli.session import with_client
from threadline.client import Client

__all__ = ["result"]

_EPILOG: Final = """\
\b
Examples:
  threadline result 0b5c8f… > report.md
  threadline result 0b5c8f… --json | jq '.sources'
  threadline result 0b5c8f… --timeout 60 || echo "not yet"
"""


@click.command(epilog=_EPILOG)
@job_argument
@click.option("--timeout", type=float, metavar="S", help="Seconds to wait; then exit 124. The job goes on.")
@user_option
@json_option
def result(job_id: str, timeout: float | None, user_id: str | None, *, as_json: bool) -> None:
    """Wait for a job's result and print it.

    A result with a report is printed as that report (markdown), any other as JSON.
    """

    async def body(client: Client) -> Any:
        return await (await client.job(job_id, user_id=user_id)).result(timeout=timeout)

    value = with_client(body)
    report = value.get("report") if isinstance(value, dict) else None
    if as_json or not isinstance(report, str):
        write_json(value)
    elif is_drawn():
        _draw(report)
    else:
        write(clean(report) if sys.stdout.isatty() else report)


def _draw(report: str) -> None:
    # Only here: rich's markdown costs more than the whole command.
    from rich.console import Console  # noqa: PLC0415
    from rich.markdown import Markdown  # noqa: PLC0415

    Console().print(Markdown(clean(report), hyperlinks=False))
