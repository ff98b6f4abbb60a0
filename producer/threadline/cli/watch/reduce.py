"""Event by event, a pure function from what was seen to what is seen now; no event of any shape can break it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from threadline.cli.output import one_line
from threadline.cli.watch.lifecycle import LIFECYCLE, lifecycle
from threadline.cli.watch.links import answered_by, link
from threadline.cli.watch.message import read_message, read_messages
from threadline.cli.watch.model import CallState, Note, Seen, Todo, View, scope_of
from threadline.cli.watch.talk import Place, take_message, tell_partial
from threadline.contract.codec import dumps
from threadline.contract.events import Event, EventType

__all__ = ["reduce"]


def reduce(view: View, event: Event) -> Seen:
    """Take in one event; the same call, file or message told again (a step that ran twice) changes nothing."""
    at = _moment(event.at) or view.heard_at or view.began or 0.0
    view = msgspec.structs.replace(
        view,
        thread_id=view.thread_id or one_line(event.thread_id, 200),
        began=at if view.began is None else view.began,
        last=event.id or view.last,
    )
    if event.type == EventType.GAP:
        return _gap(view, event, at)
    view = msgspec.structs.replace(view, events=view.events + 1)
    if event.type in LIFECYCLE:
        return _lifecycle(view, event, at)
    running = "running" if view.state in {"waiting", "queued"} else view.state
    view = msgspec.structs.replace(view, heard_at=at, state=running)
    ns = [one_line(part) for part in event.ns]
    place = Place(scope_of(ns), ns, at, event.id or "", event.task or "", event.rerun)
    view = link(view, ns, one_line(event.agent or "") or _speaker(event), at)
    return _step(view, event, place)


def _step(view: View, event: Event, place: Place) -> Seen:
    truncated = isinstance(event.data, dict) and event.data.get("truncated")
    match event.type:
        case "updates" if isinstance(event.data, dict) and not truncated:
            return _updates(view, event.data, place)
        case "values" if isinstance(event.data, dict) and not truncated:
            return _state(view, event.data, place)
        case "messages" if isinstance(event.data, list) and event.data and (message := read_message(event.data[0])):
            return take_message(view, message, place, 0)
        case "tasks" if isinstance(event.data, dict) and (call_id := _answers(event.data.get("input"))):
            view = answered_by(view, str(event.data.get("id", "")), call_id)
        case "tools" if isinstance(event.data, dict) and (call_id := str(event.data.get("tool_call_id") or "")):
            # What a tool does is told by its call and its answer; this tells which task runs it.
            return Seen(answered_by(view, place.task, call_id), [])
    return _other(view, event, place.at)


def _lifecycle(view: View, event: Event, at: float) -> Seen:
    # A message that was on its way when its worker let go was not kept: the step runs again and says its own.
    told = [note for scope in list(view.partial) for note in tell_partial(view, scope, at).notes if event.terminal]
    view, notes = lifecycle(msgspec.structs.replace(view, partial={}), event, at)
    # A start is news of the worker; a release may be another's about it.
    heard = at if view.state == "running" else view.heard_at
    return Seen(msgspec.structs.replace(view, heard_at=heard), [*told, *notes])


def _speaker(event: Event) -> str:
    """The name that an agent's message bears: what workers before 0.2 tell of who speaks."""
    if not event.ns or event.type != "updates" or not isinstance(event.data, dict):
        return ""
    updates = (update for update in event.data.values() if isinstance(update, dict))
    messages = (message for update in updates for message in read_messages(update.get("messages")))
    return next((message.name for message in messages if message.kind == "ai" and message.name), "")


def _answers(given: Any) -> str:
    """The call that a tool step's task was made for."""
    call = given.get("tool_call") if isinstance(given, dict) else None
    return str(call.get("id") or "") if isinstance(call, dict) else ""


def _gap(view: View, event: Event, at: float) -> Seen:
    data = event.data if isinstance(event.data, dict) else {}
    after, following = data.get("after") or "the beginning", data.get("next") or "now"
    note = Note(at, "gap", one_line(f"events between {after} and {following} are missing"))
    return Seen(msgspec.structs.replace(view, gaps=view.gaps + 1), [note])


def _other(view: View, event: Event, at: float) -> Seen:
    kind = one_line(event.type, 40)
    others = {**view.others, kind: view.others.get(kind, 0) + 1}
    text = one_line(dumps(event.data).decode()) if event.data is not None else ""
    return Seen(msgspec.structs.replace(view, others=others), [Note(at, kind, text, len(event.ns))])


def _updates(view: View, data: dict[str, Any], place: Place) -> Seen:
    """`{node: update | [update, …] | null}`; a node of several tasks gives a list."""
    notes: list[Note] = []
    for node, value in data.items():
        for update in value if isinstance(value, list) else [value]:
            if isinstance(update, dict):
                view, told = _state(view, update, place)
                notes += told
        view = _subgraph_ended(view, node, place)
    return Seen(view, notes)


def _state(view: View, update: dict[str, Any], place: Place) -> Seen:
    notes: list[Note] = []
    for take in (_todos, _files, _messages):
        view, told = take(view, update, place)
        notes += told
    return Seen(view, notes)


def _todos(view: View, update: dict[str, Any], place: Place) -> Seen:
    value = update.get("todos")
    if place.ns or not isinstance(value, list):  # a subagent's own plan is not the job's
        return Seen(view, [])
    todos = tuple(
        Todo(one_line(str(item.get("content", ""))), str(item.get("status", "pending")))
        for item in value
        if isinstance(item, dict)
    )
    if todos == view.todos:
        return Seen(view, [])
    view = msgspec.structs.replace(view, todos=todos)
    current = next((todo.content for todo in todos if todo.status == "in_progress"), "")
    return Seen(
        view, [Note(place.at, "plan", f"{view.completed} of {len(todos)} done" + (f", now: {current}" * bool(current)))]
    )


def _files(view: View, update: dict[str, Any], place: Place) -> Seen:
    value = update.get("files")
    if not isinstance(value, dict):
        return Seen(view, [])
    files, notes = dict(view.files), []
    for path, content in value.items():
        name = one_line(str(path))
        if content is None:
            files.pop(name, None)
            notes.append(Note(place.at, "removed", name, len(place.ns)))
        elif (size := _size(content)) != files.get(name, -1):
            files[name] = size
            notes.append(Note(place.at, "file", f"{name} ({size:,} characters)", len(place.ns)))
    return Seen(msgspec.structs.replace(view, files=files), notes)


def _size(content: Any) -> int:
    """A file's characters: text, lines, or deepagents' `{"content": …}` of either."""
    inner = content.get("content", "") if isinstance(content, dict) else content
    if isinstance(inner, list):
        return sum(len(str(line)) + 1 for line in inner)
    return len(inner) if isinstance(inner, str) else 0


def _messages(view: View, update: dict[str, Any], place: Place) -> Seen:
    notes: list[Note] = []
    for index, message in enumerate(read_messages(update.get("messages"))):
        view, told = take_message(view, message, place, index)
        notes += told
    return Seen(view, notes)


def _subgraph_ended(view: View, node: str, place: Place) -> View:
    """A node that is a subgraph has ended when its own update comes."""
    calls = {
        key: msgspec.structs.replace(call, state=CallState.DONE, ended=place.at)
        for key, call in view.calls.items()
        if call.id.startswith("ns:")
        and call.state is CallState.PENDING
        and call.scope == place.scope
        and call.id[3:].rpartition("|")[2].partition(":")[0] == node
    }
    return msgspec.structs.replace(view, calls={**view.calls, **calls}) if calls else view


def _moment(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
