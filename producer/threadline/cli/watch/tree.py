"""Calls and changes of hands in the order in which they happened, subagents' calls below theirs."""

from __future__ import annotations

from typing import NamedTuple

from threadline.cli.describe import counted
from threadline.cli.watch.model import Call, CallState, View
from threadline.cli.watch.talk import QUIET

__all__ = ["Row", "rows_of"]


class Row(NamedTuple):
    """A line of the tree: a call, or a change of hands (`call` None). `text` is what else there is to say."""

    depth: int
    call: Call | None
    text: str


def rows_of(view: View) -> list[Row]:
    """The whole tree; what a finished subagent did is folded into its own line."""
    children: dict[str, list[Call]] = {}
    for call in view.calls.values():
        children.setdefault(call.scope, []).append(call)
    rows: list[Row] = []
    waiting = [pickup for pickup in view.pickups if pickup.kind != "started" or pickup.place]
    for place, call in enumerate(children.get("", [])):
        rows += [Row(0, None, f"↻ {pickup.text}") for pickup in waiting if pickup.place == place]
        rows += _branch(view, call, children, 0)
    last = len(children.get("", []))
    return [*rows, *(Row(0, None, f"↻ {pickup.text}") for pickup in waiting if pickup.place >= last)]


def _branch(view: View, call: Call, children: dict[str, list[Call]], depth: int) -> list[Row]:
    if call.name in QUIET:
        return []
    scopes = [scope for scope, linked in view.links.items() if linked == call.id]
    inside = [child for scope in scopes for child in children.get(scope, [])]
    if call.state is not CallState.PENDING:
        return [Row(depth, call, f"({counted(len(inside), 'call')})" if inside else "")]
    return [Row(depth, call, ""), *(row for child in inside for row in _branch(view, child, children, depth + 1))]
