"""The tree of calls, made to fit: what runs now is always in sight, what is left out is counted.

Calls and changes of hands stand in the order in which they happened, a running subagent's calls below it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from threadline.cli.describe import counted
from threadline.cli.output import one_line
from threadline.cli.watch.model import DELEGATE, Call, CallState, View
from threadline.cli.watch.speech import speech
from threadline.cli.watch.talk import QUIET

__all__ = ["Row", "rows_of"]

#: From so many on, calls of one tool in a row are one line.
_ALIKE: Final = 3
#: What siblings' titles have in common is left out if it is longer than this.
_PREAMBLE: Final = 10


class Row(NamedTuple):
    """A line of the tree.

    `call` is None for a change of hands, for words and for a count of what is left out; `sign` is then its sign.
    `note` is what else there is to say, `more` how many calls below it are not shown, `number` how many it stands for.
    """

    depth: int
    call: Call | None
    title: str
    sign: str = ""
    note: str = ""
    more: int = 0
    number: int = 1


class _Branch(NamedTuple):
    row: Row
    below: Sequence[_Branch]

    @property
    def runs(self) -> bool:
        return self.row.sign == "▏" or (self.row.call is not None and self.row.call.state is CallState.PENDING)


def rows_of(view: View, room: int) -> list[Row]:
    """The tree in at most `room` lines: first the older calls of subagents give way, then those of the main agent."""
    roots = _with_pickups(view, _branches(view, "", _children(view), 0))
    for limit in range(room, -1, -1):
        rows = [row for root in roots for row in _shown(root, limit)]
        if len(rows) <= room:
            return rows
    kept = _newest(roots, room - 1)
    left_out = sum(root.row.number for root in roots) - sum(root.row.number for root in kept)
    return [Row(0, None, f"… {left_out} more", sign=" "), *(row for root in kept for row in _shown(root, 0))]


def _shown(branch: _Branch, limit: int) -> list[Row]:
    kept = _newest(branch.below, limit)
    hidden = sum(below.row.number for below in branch.below) - sum(below.row.number for below in kept)
    row = branch.row._replace(more=branch.row.more + hidden)
    return [row, *(line for below in kept for line in _shown(below, limit))]


def _newest(branches: Sequence[_Branch], limit: int) -> list[_Branch]:
    """At most `limit` of them in their order: those that run, then changes of hands, then the latest."""
    if limit <= 0:
        return []

    def worth(index: int) -> tuple[bool, bool, int]:
        return branches[index].runs, branches[index].row.call is None, index

    return [branches[index] for index in sorted(sorted(range(len(branches)), key=worth)[-limit:])]


def _children(view: View) -> dict[str, list[Call]]:
    children: dict[str, list[Call]] = {}
    for call in view.calls.values():
        if call.state is not CallState.DROPPED and call.name not in QUIET:
            children.setdefault(call.scope, []).append(call)
    return children


def _branches(view: View, scope: str, children: dict[str, list[Call]], depth: int) -> list[_Branch]:
    calls = children.get(scope, [])
    titles, linked = _told_apart(calls), set(view.links.values())
    branches: list[_Branch] = []
    for (alike, _), run in groupby(calls, key=lambda call: _likeness(call, linked)):
        group = list(run)
        if alike and len(group) >= _ALIKE:
            title = ", ".join(call.title for call in reversed(group) if call.title)
            span = msgspec.structs.replace(group[-1], began=group[0].began)
            branches.append(_Branch(Row(depth, span, one_line(title), number=len(group)), []))
        else:
            branches += [_branch(view, call, titles.get(call.id, call.title), children, depth) for call in group]
    return branches


def _branch(view: View, call: Call, title: str, children: dict[str, list[Call]], depth: int) -> _Branch:
    scopes = [scope for scope, linked in view.links.items() if linked == call.id]
    if call.state is not CallState.PENDING:
        inside = sum(len(children.get(scope, [])) for scope in scopes)
        return _Branch(Row(depth, call, title, note=counted(inside, "call") if inside else ""), [])
    below = [branch for scope in scopes for branch in _branches(view, scope, children, depth + 1)]
    words = [speech(view.partial[scope]) for scope in scopes if scope in view.partial]
    below += [_Branch(Row(depth + 1, None, text, sign="▏", number=0), []) for text in words if text]
    return _Branch(Row(depth, call, title), below)


def _with_pickups(view: View, branches: list[_Branch]) -> list[_Branch]:
    """The main agent's branches with each change of hands behind the calls that came before it."""
    order = [call.id for call in view.calls.values() if not call.scope]
    rows = list(_pickup_rows(view))
    result: list[_Branch] = []
    for branch in branches:
        at = order.index(branch.row.call.id) if branch.row.call is not None else 0
        while rows and rows[0][0] <= at:
            result.append(_Branch(rows.pop(0)[1], []))
        result.append(branch)
    return [*result, *(_Branch(row, []) for _, row in rows)]


def _pickup_rows(view: View) -> Iterable[tuple[int, Row]]:
    """Each with the number of calls before it; a release and the pick-up that follows it are one line."""
    for index, pickup in enumerate(view.pickups):
        following = view.pickups[index + 1] if index + 1 < len(view.pickups) else None
        if pickup.kind == "released" and following is not None and following.kind == "resumed":
            continue
        if pickup.kind == "started" and not pickup.place:
            continue
        yield pickup.place, Row(0, None, pickup.text, sign="↻", number=0)


def _likeness(call: Call, linked: Collection[str]) -> tuple[bool, str]:
    """Whether a call may share a line with its neighbours, and with which."""
    alike = call.state in {CallState.DONE, CallState.PENDING} and call.name != DELEGATE and call.id not in linked
    return alike, f"{call.state} {call.name}" if alike else call.id


def _told_apart(calls: Iterable[Call]) -> dict[str, str]:
    """Titles of subagents of one kind without the preamble that they share."""
    kinds: dict[str, list[Call]] = {}
    for call in calls:
        if call.agent:
            kinds.setdefault(call.agent, []).append(call)
    titles: dict[str, str] = {}
    for twins in kinds.values():
        # "Part 1 of 3" and "Part 2 of 3" say the same but for the number.
        shared = _shared([re.sub(r"\d", "0", call.title) for call in twins]) if len(twins) > 1 else ""
        cut = max(shared.rfind(" "), shared.rfind(":")) + 1
        if cut > _PREAMBLE:
            titles |= {call.id: f"…{rest}" for call in twins if (rest := call.title[cut:].strip())}
    return titles


def _shared(titles: Sequence[str]) -> str:
    """What all of them begin with."""
    first, last = min(titles), max(titles)
    return first[: next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))]
