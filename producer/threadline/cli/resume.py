"""`threadline resume`: a person's answer becomes one job, or the reason why nothing waits for it."""

from __future__ import annotations

from typing import Any, Final

import click

from threadline.cli.options import checked, json_option, json_value, user_option
from threadline.cli.output import write, write_json
from threadline.cli.session import with_client
from threadline.client import Client
from threadline.contract.job import check_thread_id
from threadline.contract.states import State
from threadline.contract.waiting import decide_all
from threadline.errors import NotWaiting
from threadline.job import Job

__all__ = ["resume"]

_EPILOG: Final = """\
\b
Examples:
  threadline inbox
  threadline resume user-42-session-7 --approve
  threadline resume user-42-session-7 --reject "not before Monday"
  threadline resume user-42-session-7 --value '{"city": "Bern"}'
  threadline resume user-42-session-7 --values '{"6ab0…": true, "91c4…": false}'
"""


@click.command(epilog=_EPILOG)
@click.argument("thread_id", metavar="THREAD", callback=checked(check_thread_id))
@click.option("--value", metavar="JSON", callback=checked(json_value), help="Answers the only question.")
@click.option(
    "--values", metavar="JSON", callback=checked(json_value), help="Answers by interrupt id: {id: answer, …}."
)
@click.option("--approve", is_flag=True, help="Yes to all that is asked, or past a breakpoint.")
@click.option(
    "--reject", metavar="[REASON]", is_flag=False, flag_value="", help="No to all that is asked; REASON is told."
)
@click.option("--idempotency-key", metavar="K", help="The same key and answer give the same job.")
@user_option
@json_option
def resume(
    *,
    thread_id: str,
    value: Any,
    values: Any,
    approve: bool,
    reject: str | None,
    idempotency_key: str | None,
    user_id: str | None,
    as_json: bool,
) -> None:
    """Answer what THREAD waits for; prints the id of the job that goes on."""
    ways = [value is not None, values is not None, approve, reject is not None]
    if sum(ways) != 1:
        raise click.UsageError("give one of --value, --values, --approve, --reject")
    if idempotency_key is not None and (approve or reject is not None):
        # What they answer depends on what is asked at the moment, so a repetition would be another answer.
        raise click.UsageError("--idempotency-key goes with --value or --values")

    async def body(client: Client) -> Job:
        answer: dict[str, Any] = {"value": value, "values": values}
        if approve or reject is not None:
            answer = await _decided(client, thread_id, user_id, approve=approve, reason=reject)
        return await client.resume(thread_id, **answer, user_id=user_id, idempotency_key=idempotency_key)

    job = with_client(body)
    if as_json:
        write_json({"job_id": job.job_id, "thread_id": job.thread_id, "state": State.QUEUED})
    else:
        write(job.job_id)


async def _decided(
    client: Client, thread_id: str, user_id: str | None, *, approve: bool, reason: str | None
) -> dict[str, Any]:
    """The same decision for everything that is asked. A question that changes meanwhile is refused by its id."""
    waiting = await client.inbox(user_id=user_id, thread_id=thread_id, limit=1)
    if not waiting:
        # The ledger says why: nobody waits, or it is another user's. Should the thread begin to wait just now, a "no"
        # names no question, or it would be taken for going on past a breakpoint.
        return {} if approve else {"values": {}}
    if waiting[0].interrupts:
        return {"values": decide_all(waiting[0].interrupts, "approve" if approve else "reject", reason or None)}
    if not approve:
        raise NotWaiting(f"thread {thread_id} waits at a breakpoint: --approve goes on, `threadline cancel` ends it")
    return {}
