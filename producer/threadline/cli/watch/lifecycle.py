"""A job's changes of hands and its end, as a watcher tells them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from threadline.cli.output import one_line
from threadline.cli.watch.model import CallState, Note, Pickup, Seen, View
from threadline.contract.events import Event, EventType
from threadline.contract.states import Code

__all__ = ["LIFECYCLE", "lifecycle"]

LIFECYCLE: Final = frozenset(EventType) - {EventType.GAP}
_STATES: Final = {
    EventType.STARTED: "running",
    EventType.RESUMED: "running",
    EventType.RELEASED: "queued",
    EventType.RETRIED: "queued",
}
#: Why a worker gave a job back.
_RELEASES: Final = {
    "": "let go",
    str(Code.DEAD_WORKER): "is dead",
    str(Code.DRAIN): "shuts down",
    str(Code.LOST_CLAIM): "never began",
    str(Code.TRANSIENT): "failed and will be tried again",
    str(Code.ERROR): "failed and will be tried again",
}
#: The same in a word, for the line of the one who goes on.
_WHYS: Final = {str(Code.DEAD_WORKER): "dead", str(Code.DRAIN): "drained", "": "let go"}


def lifecycle(view: View, event: Event, at: float) -> Seen:
    """Take in an event whose type is in LIFECYCLE."""
    kind = EventType(event.type)
    data = event.data if isinstance(event.data, dict) else {}
    changed = msgspec.structs.replace(
        view,
        state=str(_STATES.get(kind, kind)),
        epoch=event.position.epoch if event.position else view.epoch,
        ended=None,
    )
    if event.terminal:
        return _ended(changed, kind, data, at)
    if kind is EventType.QUEUED:
        agent = _word(data, "agent") or view.agent
        changed = msgspec.structs.replace(changed, agent=agent)
        return Seen(changed, [Note(at, "queued", agent)])
    if kind is EventType.RETRIED:
        changed = _reopened(changed)
    text = _hands(view, kind, data, at)
    why = _WHYS.get(code := _word(data, "code"), code) if kind is EventType.RELEASED else ""
    pickup = Pickup(str(kind), at, text, sum(not call.scope for call in view.calls.values()), why)
    worker = _word(data, "worker_id") if changed.state == "running" else ""
    changed = msgspec.structs.replace(changed, worker=worker, error="", pickups=(*view.pickups, pickup))
    return Seen(changed, [Note(at, str(kind), text)])


def _hands(view: View, kind: EventType, data: dict[str, Any], at: float) -> str:
    worker = _word(data, "worker_id") or "a worker"
    match kind:
        case EventType.RESUMED:
            before = _word(data, "from_worker")
            pause = f" after {max(0.0, at - view.heard_at):.1f} s" if view.heard_at else ""
            why = f" ({view.pickups[-1].why})" if view.pickups and view.pickups[-1].why else ""
            return f"{worker} picks up{f' from {before}{why}' if before else ''}{pause}"
        case EventType.RELEASED:
            code, message = _word(data, "code"), _word(data, "message")
            return f"{worker} {_RELEASES.get(code, f'let go ({code})')}" + (f": {message}" if message else "")
        case EventType.RETRIED:
            return "goes on from its last checkpoint"
        case _:
            return worker


def _reopened(view: View) -> View:
    """What was cut off by the end is under way again: a retry goes on behind the last checkpoint."""
    calls = {
        key: msgspec.structs.replace(call, state=CallState.PENDING, ended=None)
        if call.state is CallState.STOPPED
        else call
        for key, call in view.calls.items()
    }
    return msgspec.structs.replace(view, calls=calls)


def _ended(view: View, kind: EventType, data: dict[str, Any], at: float) -> Seen:
    # What is open now will not be answered in this run; a subgraph that was told of no end has ended with the job.
    open_end = CallState.DONE if kind is EventType.SUCCEEDED else CallState.STOPPED
    calls = {
        key: msgspec.structs.replace(call, state=open_end, ended=at) if call.state is CallState.PENDING else call
        for key, call in view.calls.items()
    }
    error = ": ".join(word for word in (_word(data, "code"), _word(data, "message")) if word)
    if kind is EventType.INTERRUPTED:
        error = _questions(data.get("interrupts"))
    view = msgspec.structs.replace(view, calls=calls, ended=at, error=error)
    return Seen(view, [Note(at, str(kind), error)])


def _questions(interrupts: Any) -> str:
    asked = [item.get("value") if isinstance(item, dict) else item for item in interrupts or []]
    return one_line("; ".join(str(value) for value in asked))


def _word(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    return one_line(value, 2000) if isinstance(value, str) else ""
