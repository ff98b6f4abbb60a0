"""`threadline enqueue`: when it prints a job id, the job is accepted."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from threadline.cli.errors import ExitCode
from threadline.cli.options import checked, json_option, json_value, user_option
from threadline.cli.output import is_drawn, say, write, write_json
from threadline.cli.session import with_client
from threadline.cli.watch.trail import Trail
from threadline.client import Client
from threadline.contract.codec import MAX_INPUT_BYTES, loads
from threadline.contract.job import STREAM_MODES, check_thread_id
from threadline.contract.queues import check_queue
from threadline.contract.states import OnBusy, State
from threadline.contract.webhook import check_webhook_url
from threadline.errors import BackendUnavailable, InvalidJob
from threadline.job import Job

__all__ = ["enqueue"]

#: JSON may have any amount of white space around 1 MiB of content; more than this nobody means.
_MAX_STDIN: Final = 8 * MAX_INPUT_BYTES
_EPILOG: Final = """\
\b
Examples:
  threadline enqueue research "What changed in PostgreSQL 18?" --watch
  threadline enqueue research - --thread user-42-session-7 < question.txt
  threadline enqueue my-graph '{"topic": "tides"}' --input-json --json
  threadline enqueue research "Monday's news" --run-at 2026-11-23T06:00+01:00
"""


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidJob(f"{value!r} is no ISO 8601 moment, for example 2026-11-23T06:00+01:00") from error
    if moment.tzinfo is None:
        raise InvalidJob(f"{value!r} has no time zone: add Z or an offset, for example {value}Z")
    return moment


def _object(value: str) -> dict[str, Any]:
    given = json_value(value)
    if not isinstance(given, dict):
        raise InvalidJob(f'{value!r} is no JSON object, for example {{"model": "small"}}')
    return given


def _metadata(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{pair!r}: give KEY=VALUE", ctx=context, param=parameter)
        metadata[key] = value
    return metadata


@click.command(epilog=_EPILOG)
@click.argument("agent")
@click.argument("text", metavar="INPUT")
@click.option("--input-json", is_flag=True, help="INPUT is JSON: the graph's input.")
@click.option("--thread", "thread_id", metavar="T", callback=checked(check_thread_id), help="Continue this thread.")
@user_option
@click.option(
    "--on-busy",
    type=click.Choice([str(choice) for choice in OnBusy]),
    default=str(OnBusy.ENQUEUE),
    show_default=True,
    help="What to do when the thread is busy.",
)
@click.option("--idempotency-key", metavar="K", help="The same key and request give the same job.")
@click.option(
    "--stream-mode",
    "stream_modes",
    type=click.Choice(STREAM_MODES),
    multiple=True,
    help="What the job's events carry; repeat. Default: updates; to watch on a terminal also messages and tools.",
)
@click.option("--timeout", type=float, metavar="S", help="Seconds of running time, summed over pick-ups.")
@click.option("--expires", type=float, metavar="S", help="Seconds in which the job must have been started.")
@click.option("--wait-expires", type=float, metavar="S", help="Seconds until a question that nobody answers ends it.")
@click.option("--run-at", metavar="ISO", callback=checked(_moment), help="Not before this moment.")
@click.option(
    "--webhook",
    "webhook_url",
    metavar="URL",
    callback=checked(check_webhook_url),
    help="Is sent a signed report of each end.",
)
@click.option("--configurable", metavar="JSON", callback=checked(_object), help="The graph's configurable.")
@click.option("--context", metavar="JSON", callback=checked(_object), help="The fields of the graph's context.")
@click.option("--metadata", metavar="KEY=VALUE", multiple=True, callback=_metadata, help="Kept with the job; repeat.")
@click.option(
    "--queue", metavar="Q", callback=checked(check_queue), help="Where it waits; else as THREADLINE_QUEUES says."
)
@click.option("--watch", "watched", is_flag=True, help="Follow the job; Ctrl-C does not cancel it.")
@json_option
def enqueue(
    *, agent: str, text: str, input_json: bool, user_id: str | None, watched: bool, as_json: bool, **options: Any
) -> int:
    """Give AGENT a job and print the job's id.

    INPUT is the question, `-` reads it from stdin. With --json the job is printed as {"job_id","thread_id","state"};
    with --watch --json its events follow, one a line.
    """
    given = _given(text, as_json=input_json)
    # A shell's span, by OpenTelemetry's convention for programs that start programs.
    options["traceparent"] = os.environ.get("TRACEPARENT")
    drawn = watched and is_drawn() and not as_json
    options["stream_modes"] = options["stream_modes"] or _modes(drawn=drawn, key=options["idempotency_key"])
    accepted: list[str] = []
    trail = Trail()

    async def body(client: Client) -> int:
        job = await client.enqueue(agent, given, user_id=user_id or "default", **options)
        accepted.append(job.job_id)
        if as_json:
            write_json({"job_id": job.job_id, "thread_id": job.thread_id, "state": await _state(client, job)})
        else:
            write(job.job_id)
        return await _watched(client, job, trail, as_json=as_json) if watched else 0

    try:
        return with_client(body)
    except KeyboardInterrupt:
        if accepted:
            back = trail.command(accepted[0], thread=False, exact=not drawn)
            say(f"stopped watching; job {accepted[0]} goes on. Come back with: {back}")
        return ExitCode.CTRL_C


def _modes(*, drawn: bool, key: str | None) -> tuple[str, ...]:
    """A picture shows the words as they come, and by `tools` which of two equal subagents does what.

    Under a key the request must be the same however it is watched.
    """
    return ("updates", "messages", "tools") if drawn and key is None else ("updates",)


def _given(text: str, *, as_json: bool) -> Any:
    source = _stdin() if text == "-" else text
    if not as_json:
        return source
    try:
        return loads(source)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:  # bytes in the arguments that are no text
        raise InvalidJob(f"--input-json: INPUT is not JSON: {error}") from error


def _stdin() -> str:
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN:
        raise InvalidJob(f"stdin has over {_MAX_STDIN:,} bytes; an input has at most {MAX_INPUT_BYTES:,}")
    try:
        return data.decode("utf-8-sig").rstrip("\n")
    except UnicodeDecodeError as error:
        raise InvalidJob(f"stdin is not UTF-8 text: {error}") from error


async def _state(client: Client, job: Job) -> State:
    """The job's state; an idempotency key may have named one that has ended."""
    if client.has_ledger:
        # The job is accepted: that is what must be told, whatever happens now.
        with suppress(BackendUnavailable):
            return (await job.status()).state
    return State.QUEUED


async def _watched(client: Client, job: Job, trail: Trail, *, as_json: bool) -> int:
    # Only here: the other commands do without what draws.
    from threadline.cli.watch.following import follow_job  # noqa: PLC0415

    return await follow_job(client, job, trail, as_json=as_json)
