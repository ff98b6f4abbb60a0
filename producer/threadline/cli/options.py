"""Arguments that several commands share; a malformed value is a usage error before anything is contacted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from threadline.contract.codec import loads
from threadline.contract.job import check_agent, check_id, check_thread_id, check_user_id
from threadline.errors import InvalidJob

__all__ = [
    "agent_option",
    "checked",
    "checkpoint_option",
    "job_argument",
    "json_option",
    "json_value",
    "thread_argument",
    "thread_option",
    "user_option",
]

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


def json_value(text: str) -> Any:
    """The value of an argument that is JSON. Raises InvalidJob."""
    try:
        return loads(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidJob(f"{text[:60]!r} is not JSON ({error}); text needs quotes of its own: '\"text\"'") from error


job_argument: Decorator = click.argument(
    "job_id", metavar="JOB", callback=checked(lambda value: check_id("job id", value))
)
thread_argument: Decorator = click.argument("thread_id", metavar="THREAD", callback=checked(check_thread_id))
checkpoint_option: Decorator = click.option(
    "--checkpoint",
    "checkpoint_id",
    metavar="ID",
    callback=checked(lambda value: check_id("checkpoint id", value)),
    help="As it was at this checkpoint; else at its head.",
)
agent_option: Decorator = click.option(
    "--agent",
    metavar="A",
    callback=checked(check_agent),
    help="Whose graph the thread is; else that of its latest job.",
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
