"""Follows a job to its end in the form that suits stdout; the exit code is the job's."""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing
from typing import Protocol

from threadline.cli.errors import exit_code_of_state
from threadline.cli.output import is_drawn, say, write
from threadline.cli.watch.attend import attend
from threadline.cli.watch.closing import closing
from threadline.cli.watch.json_lines import JsonLines
from threadline.cli.watch.model import View
from threadline.cli.watch.plain import PlainLines
from threadline.cli.watch.trail import Trail
from threadline.client import Client
from threadline.contract.events import Event, EventType
from threadline.job import Job
from threadline.settings import ClientSettings

__all__ = ["follow_job"]


class _Shown(Protocol):
    """`view` is what has been seen, None where nothing is drawn from it."""

    @property
    def view(self) -> View | None: ...

    def take(self, event: Event) -> None: ...

    def notice(self, sentence: str) -> None: ...


async def follow_job(
    client: Client, job: Job, trail: Trail, *, after: str | None = None, as_json: bool = False, plain: bool = False
) -> int:
    """Show a job's events behind `after` until it ends; the exit code that contract.md gives its end.

    Raises JobNotFound, ThreadOwnedByAnother, BackendUnavailable, InvalidJob for an `after` that is no event id.
    """
    end: Event | None = None
    view = await _known(client, job, begun=after is not None)
    with _shown(view, as_json=as_json, plain=plain) as shown:
        async with (
            attend(shown, ClientSettings.from_env().redis_url, _hint(client, job)) as heard,
            aclosing(job.events(after=after)) as events,
        ):
            async for event in events:
                heard.set()
                shown.take(event)
                trail.saw(event)
                end = event if event.terminal else None
    if end is None:
        return exit_code_of_state(await _ended_before(client, job))
    if shown.view is not None:
        write(closing(shown.view))
        if end.type == EventType.SUCCEEDED and not (plain or as_json) and is_drawn():
            write(f"the result: threadline result {job.job_id}")
    _say_why(job, end)
    return exit_code_of_state(end.type)


def _shown(view: View, *, as_json: bool, plain: bool) -> AbstractContextManager[_Shown]:
    if as_json:
        return JsonLines()
    if plain or not is_drawn():
        return PlainLines(view)
    # Only here: rich is for terminals.
    from threadline.cli.watch.live import LivePicture  # noqa: PLC0415

    return LivePicture(view)


def _hint(client: Client, job: Job) -> str | None:
    """What a silence from the beginning means; a ledger would have said that it knows no such job."""
    if client.has_ledger:
        return None
    return f"Redis has nothing of job {job.job_id}; waiting for it (only DATABASE_URL can tell whether it exists)"


async def _known(client: Client, job: Job, *, begun: bool) -> View:
    """What the ledger knows before the first event; from Redis alone nothing."""
    if not client.has_ledger:
        return View(job_id=job.job_id)
    status = await job.status()
    began = status.created_at.timestamp() if status.created_at else None
    state = str(status.state) if begun else "waiting"
    return View(job_id=job.job_id, thread_id=status.thread_id, agent=status.agent, began=began, state=state)


async def _ended_before(client: Client, job: Job) -> str:
    """The state of a job whose end lies before the position that was asked for."""
    if client.has_ledger:
        return (await job.status()).state
    end = EventType.SUCCEEDED.value
    async with aclosing(job.events()) as events:
        async for event in events:
            end = event.type
    return end


def _say_why(job: Job, end: Event) -> None:
    data = end.data if isinstance(end.data, dict) else {}
    match end.type:
        case EventType.FAILED:
            say(f"job {job.job_id} failed: {data.get('code')}: {data.get('message')}")
        case EventType.CANCELLED:
            say(f"job {job.job_id} was cancelled ({data.get('code')})")
        case EventType.INTERRUPTED:
            say(f"job {job.job_id} waits for a person: `threadline resume {end.thread_id}` answers")
