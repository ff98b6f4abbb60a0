"""Follows a thread across its jobs; it has no end of its own, so only Ctrl-C (or an error) ends the watching."""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing
from typing import Protocol

from threadline.cli.output import is_drawn
from threadline.cli.watch.attend import attend
from threadline.cli.watch.closing import closing
from threadline.cli.watch.json_lines import JsonLines
from threadline.cli.watch.model import View
from threadline.cli.watch.plain import PlainLines
from threadline.cli.watch.trail import Trail
from threadline.client import Client
from threadline.contract.events import Event, EventType
from threadline.settings import ClientSettings

__all__ = ["follow_thread"]


class _Shown(Protocol):
    def take(self, event: Event) -> None: ...

    def notice(self, sentence: str) -> None: ...


async def follow_thread(
    client: Client,
    thread_id: str,
    trail: Trail,
    *,
    user_id: str | None = None,
    after: str | None = None,
    as_json: bool = False,
    plain: bool = False,
) -> None:
    """Show the events of a thread's jobs behind `after` (`JOB/ID`) until it is cancelled.

    Raises ThreadOwnedByAnother, JobNotFound, BackendUnavailable, InvalidJob for an `after` that is no position.
    """
    hint = f"nothing has happened on thread {thread_id} yet; waiting for a job"
    if not client.has_ledger:
        hint = f"thread {thread_id} is followed from now on: only DATABASE_URL knows its earlier jobs"
    with _shown(thread_id, as_json=as_json, plain=plain) as shown:
        async with (
            attend(shown, ClientSettings.from_env().redis_url, hint) as heard,
            aclosing(client.thread_events(thread_id, user_id=user_id, after=after)) as events,
        ):
            async for event in events:
                heard.set()
                shown.take(event)
                trail.saw(event)


class ThreadLines(PlainLines):
    """Lines of each job below a line that names it."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(View(job_id="", thread_id=thread_id))

    def take(self, event: Event) -> None:
        """Print what the event tells. Raises BrokenPipeError."""
        if not event.job_id and event.type == EventType.GAP:
            self.tell("whole jobs may be missing here")
            return
        if event.job_id != self.view.job_id:
            self.view = View(job_id=event.job_id, thread_id=self.view.thread_id)
            self.tell(f"job {event.job_id}")
        super().take(event)
        if event.terminal:
            self.tell(closing(self.view))


def _shown(thread_id: str, *, as_json: bool, plain: bool) -> AbstractContextManager[_Shown]:
    if as_json:
        return JsonLines()
    if plain or not is_drawn():
        return ThreadLines(thread_id)
    # Only here: rich is for terminals.
    from threadline.cli.watch.thread_picture import ThreadPicture  # noqa: PLC0415

    return ThreadPicture(thread_id)
