"""Which call a subgraph works for: as the worker tells, else by its agent's name, else in the order of their start.

What is only guessed is given up for what is known: a name, a task, an answer that was the subagent's last word.
"""

from __future__ import annotations

import msgspec

from threadline.cli.watch.model import DELEGATE, Call, CallState, View, scope_of

__all__ = ["answered_by", "link", "relinked"]


def link(view: View, ns: list[str], agent: str, at: float) -> View:
    """See that each part of a namespace has its call; `agent` is who works in the whole of it, if that was told."""
    for depth in range(1, len(ns) + 1):
        scope, parent = scope_of(ns[:depth]), scope_of(ns[: depth - 1])
        name = (agent if depth == len(ns) else "") or view.names.get(scope, "")
        if name and view.names.get(scope) != name:
            view = msgspec.structs.replace(view, names={**view.names, scope: name})
        if (known := _of_task(view, ns[depth - 1])) is not None:
            view = _bound(view, scope, known)
        elif scope not in view.links or _is_wrong(view, scope):
            view = _guessed(view, scope, parent, ns[depth - 1], at)
    return view


def answered_by(view: View, task: str, call_id: str) -> View:
    """A worker told that this task answers this call: its subgraph is known for certain."""
    if not task or view.tasks.get(task) == call_id:
        return view
    view = msgspec.structs.replace(view, tasks={**view.tasks, task: call_id})
    scopes = [scope for scope in view.links if scope.rpartition(":")[2] == task]
    return _bound(view, scopes[0], call_id) if scopes and call_id in view.calls else view


def relinked(view: View, call: Call, answer: str) -> View:
    """A subagent's last word is its call's answer: where twins were taken for each other, it tells them apart."""
    scopes = {linked: scope for scope, linked in view.links.items()}
    mine = scopes.get(call.id)
    if call.name != DELEGATE or not answer.strip() or (mine is not None and view.said.get(mine) == answer):
        return view
    for scope, other in view.links.items():
        if view.said.get(scope) == answer and view.calls[other].state is CallState.PENDING:
            return _bound(view, scope, call.id)
    return view


def _of_task(view: View, part: str) -> str | None:
    call_id = view.tasks.get(part.rpartition(":")[2])
    return call_id if call_id in view.calls else None


def _is_wrong(view: View, scope: str) -> bool:
    """Whether the scope's agent has turned out to be another than its call asked for."""
    name, call = view.names.get(scope), view.calls[view.links[scope]]
    return bool(name and call.agent and call.agent != name)


def _guessed(view: View, scope: str, parent: str, part: str, at: float) -> View:
    name = view.names.get(scope, "")
    holders = {linked: holder for holder, linked in view.links.items() if holder != scope}
    fitting = [
        call
        for call in view.calls.values()
        if call.scope == parent
        and call.name == DELEGATE
        and call.state is CallState.PENDING
        and (not name or call.agent in {"", name})
    ]
    for call in fitting:
        if call.id not in holders:
            return _bound(view, scope, call.id)
    for call in fitting:
        # Held by one whose own name is not known yet, or is another: that one was guessed.
        if name and view.names.get(holders[call.id]) != name:
            return _bound(view, scope, call.id)
    if scope in view.links:
        return view
    own = Call(
        id=f"ns:{scope}", name=name or part.partition(":")[0], title="", scope=parent, epoch=view.epoch, began=at
    )
    calls, links = {**view.calls, own.id: own}, {**view.links, scope: own.id}
    return msgspec.structs.replace(view, calls=calls, links=links)


def _bound(view: View, scope: str, call_id: str) -> View:
    """The scope works for this call; whoever was thought to do so takes what the scope had, or is asked anew."""
    before = view.links.get(scope)
    if before == call_id:
        return view
    links = {other: linked for other, linked in view.links.items() if linked != call_id}
    for other, linked in view.links.items():
        if linked == call_id and before is not None and not before.startswith("ns:"):
            links[other] = before
    calls = view.calls
    if before is not None and before.startswith("ns:"):
        calls = {key: call for key, call in calls.items() if key != before}
    return msgspec.structs.replace(view, calls=calls, links={**links, scope: call_id})
