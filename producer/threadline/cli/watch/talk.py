"""What agents say, ask of tools and get back; each message and each call is taken in once, however often it is told."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from threadline.cli.output import one_line
from threadline.cli.watch.message import Asked, Message
from threadline.cli.watch.model import Call, CallState, Note, Seen, View, scope_of

__all__ = ["Place", "take_message", "tell_partial"]

#: Tools whose effect is shown elsewhere (the plan).
QUIET: Final = frozenset({"write_todos"})
_WRITERS: Final = frozenset({"write_file", "edit_file"})
_DELEGATE: Final = "task"


class Place(NamedTuple):
    """Where and when something was told: scope and namespace, epoch seconds, the event's id."""

    scope: str
    ns: list[str]
    at: float
    event_id: str


def take_message(view: View, message: Message, place: Place, index: int) -> Seen:
    """Take in a message; `index` tells messages of one event apart that have no id."""
    if message.kind == "tool":
        return _answered(view, message, place)
    view = _linked(view, message, place)
    if message.kind == "chunk":
        return _piece(view, message, place)
    key = message.id or f"{place.event_id}/{index}"
    if message.tokens is not None:
        view = msgspec.structs.replace(view, tokens={**view.tokens, key: message.tokens})
    notes: list[Note] = []
    if key not in view.messages:
        partial = {scope: piece for scope, piece in view.partial.items() if piece[0] != key}
        view = msgspec.structs.replace(view, partial=partial, messages=view.messages | {key})
        view, notes = _say(view, message.text, place)
        view = _drop_unanswered(view, message, place)
    for asked in message.asks:
        view, told = _asked(view, asked, place)
        notes += told
    return Seen(view, notes)


def tell_partial(view: View, scope: str, at: float) -> Seen:
    """A streamed message that nobody sent whole is told as far as it came."""
    message_id, text = view.partial[scope]
    partial = {other: piece for other, piece in view.partial.items() if other != scope}
    view = msgspec.structs.replace(view, partial=partial, messages=view.messages | {message_id})
    return _say(view, text, Place(scope, scope.split("|") if scope else [], at, ""))


def _say(view: View, text: str, place: Place) -> Seen:
    if not text.strip():
        return Seen(view, [])
    view = msgspec.structs.replace(view, said={**view.said, place.scope: text})
    return Seen(view, [Note(place.at, "says", one_line(text), len(place.ns))])


def _piece(view: View, message: Message, place: Place) -> Seen:
    """A piece of a streamed message: pieces share its id and concatenate."""
    if message.id in view.messages:
        return Seen(view, [])
    notes: list[Note] = []
    if (open_piece := view.partial.get(place.scope)) is not None and open_piece[0] != message.id:
        view, notes = tell_partial(view, place.scope, place.at)
        open_piece = None
    text = (open_piece[1] if open_piece else "") + message.text
    tokens = view.tokens
    if message.tokens is not None:
        given, made = tokens.get(message.id, (0, 0))
        tokens = {**tokens, message.id: (given + message.tokens[0], made + message.tokens[1])}
    partial = {**view.partial, place.scope: (message.id, text)}
    return Seen(msgspec.structs.replace(view, partial=partial, tokens=tokens), notes)


def _asked(view: View, asked: Asked, place: Place) -> Seen:
    if asked.id in view.calls:
        return Seen(view, [])
    call = Call(
        id=asked.id,
        name=asked.name,
        title=asked.title,
        scope=place.scope,
        epoch=view.epoch,
        began=place.at,
        agent=asked.agent,
    )
    view = msgspec.structs.replace(view, calls={**view.calls, call.id: call})
    if call.name in QUIET:
        return Seen(view, [])
    if call.name == _DELEGATE and call.agent:
        return Seen(view, [Note(place.at, call.agent, call.title, len(place.ns))])
    return Seen(view, [Note(place.at, "calls", f"{call.name} {call.title}".rstrip(), len(place.ns))])


def _answered(view: View, message: Message, place: Place) -> Seen:
    call = view.calls.get(message.answers)
    if call is None or call.ended is not None:
        return Seen(view, [])
    state = CallState.FAILED if message.failed else CallState.DONE
    view = _relinked(view, call, message.text)
    ended = msgspec.structs.replace(call, state=state, ended=place.at)
    view = msgspec.structs.replace(view, calls={**view.calls, call.id: ended})
    notes = []
    if call.name not in QUIET:
        what = call.agent or call.name
        why = f": {one_line(message.text)}" if message.failed else ""
        label = "failed" if message.failed else "done"
        notes.append(Note(place.at, label, f"{what} {max(0.0, place.at - call.began):.1f} s{why}", len(place.ns)))
    if call.name in _WRITERS and not message.failed and call.title not in view.files:
        # A backend that is not the state (memories, disk) tells of no `files`.
        view = msgspec.structs.replace(view, files={**view.files, call.title: None})
        notes.append(Note(place.at, "file", call.title, len(place.ns)))
    return Seen(view, notes)


def _drop_unanswered(view: View, message: Message, place: Place) -> View:
    """A model speaks when its calls are answered. Open calls of an earlier epoch belong to a step that ran again."""
    again = {asked.id for asked in message.asks}
    dropped = {
        key: msgspec.structs.replace(call, state=CallState.DROPPED, ended=place.at)
        for key, call in view.calls.items()
        if call.state is CallState.PENDING
        and call.scope == place.scope
        and call.epoch < view.epoch
        and call.id not in again
    }
    return msgspec.structs.replace(view, calls={**view.calls, **dropped}) if dropped else view


def _linked(view: View, message: Message, place: Place) -> View:
    """Find the call that a subgraph works for: its agent's name says which, else the first that is free."""
    if not place.ns or place.scope in view.links:
        return view
    parent, taken = scope_of(place.ns[:-1]), set(view.links.values())
    free = [
        call
        for call in view.calls.values()
        if call.scope == parent and call.name == _DELEGATE and call.state is CallState.PENDING and call.id not in taken
    ]
    for call in sorted(free, key=lambda call: call.agent != message.name):
        return msgspec.structs.replace(view, links={**view.links, place.scope: call.id})
    own = Call(
        id=f"ns:{place.scope}",
        name=message.name or place.ns[-1].partition(":")[0],
        title="",
        scope=parent,
        epoch=view.epoch,
        began=place.at,
    )
    return msgspec.structs.replace(view, calls={**view.calls, own.id: own}, links={**view.links, place.scope: own.id})


def _relinked(view: View, call: Call, answer: str) -> View:
    """A subagent's last word is its call's answer: where twins were taken for each other, it tells them apart."""
    scopes = {linked: scope for scope, linked in view.links.items()}
    mine = scopes.get(call.id)
    if call.name != _DELEGATE or not answer.strip() or (mine is not None and view.said.get(mine) == answer):
        return view
    for scope, other in view.links.items():
        if view.said.get(scope) == answer and view.calls[other].state is CallState.PENDING:
            swapped = {**view.links, scope: call.id}
            if mine is not None:
                swapped[mine] = other
            return msgspec.structs.replace(view, links=swapped)
    return view
