"""Follows a job to its end in the form that suits stdout; the exit code is the job's."""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing
from types import TracebackType
from typing import Protocol, Self

from threadline.cli.describe import clock, counted
from threadline.cli.errors import exit_code_of_state
from threadline.cli.output import is_drawn, say, write, write_line
from threadline.cli.watch.model import View
from threadline.cli.watch.plain import PlainLines
from threadline.client import Client
from threadline.contract.events import Event, EventType, encode_event
from threadline.job import Job

__all__ = ["follow_job"]


class _Shown(Protocol):
    """`view` is what has been seen, None where nothing is drawn from it."""

    @property
    def view(self) -> View | None: ...

    def take(self, event: Event) -> None: ...


class _JsonLines:
    """Each event exactly as on the wire, one a line, flushed."""

    view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held back."""

    def take(self, event: Event) -> None:
        """Print the event. Raises BrokenPipeError."""
        write_line(encode_event(event))


async def follow_job(client: Client, job: Job, *, after: str | None = None, as_json: bool = False) -> int:
    """Show a job's events behind `after` until it ends; the exit code that contract.md gives its end.

    Raises JobNotFound, ThreadOwnedByAnother, BackendUnavailable, InvalidJob for an `after` that is no event id.
    """
    end: Event | None = None
    with _shown(await _known(client, job, begun=after is not None), as_json=as_json) as shown:
        async with aclosing(job.events(after=after)) as events:
            async for event in events:
                shown.take(event)
                end = event if event.terminal else None
    if end is None:
        return exit_code_of_state(await _ended_before(client, job))
    if shown.view is not None:
        write(_closing(shown.view))
    _say_why(job, end)
    return exit_code_of_state(end.type)


def _shown(view: View, *, as_json: bool) -> AbstractContextManager[_Shown]:
    if as_json:
        return _JsonLines()
    if not is_drawn():
        return PlainLines(view)
    # Only here: rich is for terminals.
    from threadline.cli.watch.live import LivePicture  # noqa: PLC0415

    return LivePicture(view)


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


def _closing(view: View) -> str:
    calls = sum(not call.id.startswith("ns:") for call in view.calls.values())
    given, made = view.used
    pickups = sum(pickup.kind == "resumed" for pickup in view.pickups)
    counts = {
        "call": calls,
        "file": len(view.files),
        "pick-up": pickups,
        "token": given + made,
        "event": view.events,
        "gap": view.gaps,
    }
    facts = ", ".join(counted(count, what) for what, count in counts.items() if count)
    took = clock((view.ended or 0.0) - (view.began or 0.0))
    return f"{view.state} in {took}" + (f" ({facts})" if facts else "")


def _say_why(job: Job, end: Event) -> None:
    data = end.data if isinstance(end.data, dict) else {}
    match end.type:
        case EventType.FAILED:
            say(f"job {job.job_id} failed: {data.get('code')}: {data.get('message')}")
        case EventType.CANCELLED:
            say(f"job {job.job_id} was cancelled ({data.get('code')})")
        case EventType.INTERRUPTED:
            say(f"job {job.job_id} waits for a person")
