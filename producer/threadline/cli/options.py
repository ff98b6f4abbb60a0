"""Arguments that several commands share; a malformed value is a usage error before anything is contacted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from threadline.contract.job import check_id, check_thread_id, check_user_id
from threadline.errors import InvalidJob

__all__ = ["checked", "job_argument", "json_option", "thread_option", "user_option"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def checked(check: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A click callback that gives `check(value)` and turns InvalidJob into a usage error; None stays None."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return check(value)
        except InvalidJob as error:
            raise click.BadParameter(str(error), ctx=context, param=parameter) from error

    return callback


job_argument: Decorator = click.argument(
    "job_id", metavar="JOB", callback=checked(lambda value: check_id("job id", value))
)
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
thread_option: Decorator = click.option(
    "--thread", "thread_id", metavar="T", callback=checked(check_thread_id), help="Only jobs of this thread."
)
user_option: Decorator = click.option(
    "--user",
    "user_id",
    metavar="U",
    callback=checked(check_user_id),
    help="Act as this user: others' jobs are refused.",
)
