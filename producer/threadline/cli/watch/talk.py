"""What agents say, ask of tools and get back; each message and each call is taken in once, however often it is told."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from threadline.cli.output import one_line
from threadline.cli.watch.links import answered_by, relinked
from threadline.cli.watch.message import Asked, Message
from threadline.cli.watch.model import DELEGATE, Call, CallState, Note, Piece, Seen, View

__all__ = ["Place", "take_message", "tell_partial"]

#: Tools whose effect is shown elsewhere (the plan).
QUIET: Final = frozenset({"write_todos"})
_WRITERS: Final = frozenset({"write_file", "edit_file"})


class Place(NamedTuple):
    """Where and when something was told: scope and namespace, epoch seconds, the event's id, the task's.

    `rerun`: the step was under way before a pick-up and runs again.
    """

    scope: str
    ns: list[str]
    at: float
    event_id: str
    task: str = ""
    rerun: bool = False


def take_message(view: View, message: Message, place: Place, index: int) -> Seen:
    """Take in a message; `index` tells messages of one event apart that have no id."""
    if message.kind == "tool":
        return _answered(view, message, place)
    if message.kind == "chunk":
        return _piece(view, message, place)
    key = message.id or f"{place.event_id}/{index}"
    if message.tokens is not None:
        view = msgspec.structs.replace(view, tokens={**view.tokens, key: message.tokens})
    notes: list[Note] = []
    if key not in view.messages:
        partial = {scope: piece for scope, piece in view.partial.items() if piece.id != key}
        view = msgspec.structs.replace(view, partial=partial, messages=view.messages | {key})
        view, notes = _say(view, message.text, place)
        view = _drop_unanswered(view, message, place)
    for asked in message.asks:
        view, told = _asked(view, asked, place)
        notes += told
    return Seen(view, notes)


def tell_partial(view: View, scope: str, at: float) -> Seen:
    """A streamed message that nobody sent whole is told as far as it came."""
    piece = view.partial[scope]
    view = msgspec.structs.replace(_forgotten(view, scope), messages=view.messages | {piece.id})
    return _say(view, piece.text, Place(scope, scope.split("|") if scope else [], at, ""))


def _forgotten(view: View, scope: str) -> View:
    return msgspec.structs.replace(
        view, partial={other: piece for other, piece in view.partial.items() if other != scope}
    )


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
    piece = view.partial.get(place.scope)
    if piece is not None and piece.id != message.id:
        view, notes = tell_partial(view, place.scope, place.at)
        piece = None
    tokens = view.tokens
    if message.tokens is not None:
        given, made = tokens.get(message.id, (0, 0))
        tokens = {**tokens, message.id: (given + message.tokens[0], made + message.tokens[1])}
    partial = {**view.partial, place.scope: _grown(piece or Piece(message.id), message)}
    return Seen(msgspec.structs.replace(view, partial=partial, tokens=tokens), notes)


def _grown(piece: Piece, message: Message) -> Piece:
    """The piece with the next one behind it; the arguments of a call are only of interest while it is the last."""
    args = message.args if message.tool else piece.args + message.args
    return Piece(piece.id, piece.text + message.text, message.tool or piece.tool, args)


def _asked(view: View, asked: Asked, place: Place) -> Seen:
    if (known := view.calls.get(asked.id)) is not None and known.state is not CallState.DROPPED:
        return Seen(view, [])
    call = Call(
        id=asked.id,
        name=asked.name,
        title=asked.title,
        scope=place.scope,
        epoch=view.epoch,
        began=place.at,
        agent=asked.agent,
        task=place.task,
        gaps=view.gaps,
    )
    view = msgspec.structs.replace(view, calls={**view.calls, call.id: call})
    if call.name in QUIET:
        return Seen(view, [])
    if call.name == DELEGATE and call.agent:
        return Seen(view, [Note(place.at, call.agent, call.title, len(place.ns))])
    return Seen(view, [Note(place.at, "calls", f"{call.name} {call.title}".rstrip(), len(place.ns))])


def _answered(view: View, message: Message, place: Place) -> Seen:
    call = view.calls.get(message.answers)
    if call is None or call.ended is not None:
        return Seen(view, [])
    state = CallState.FAILED if message.failed else CallState.DONE
    view = relinked(answered_by(view, place.task, call.id), call, message.text)
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
    """A model speaks when its calls are answered.

    Open calls of an earlier epoch, or of this very task, belong to a step that ran again; the answers of those from
    before a gap were in it.
    """
    again = {asked.id for asked in message.asks}
    changed: dict[str, Call] = {}
    for key, call in view.calls.items():
        if call.state is not CallState.PENDING or call.scope != place.scope or call.id in again:
            continue
        if call.epoch < view.epoch or (place.rerun and place.task and call.task == place.task):
            changed[key] = msgspec.structs.replace(call, state=CallState.DROPPED, ended=place.at)
        elif call.gaps < view.gaps:
            changed[key] = msgspec.structs.replace(call, state=CallState.DONE, ended=place.at)
    return msgspec.structs.replace(view, calls={**view.calls, **changed}) if changed else view
