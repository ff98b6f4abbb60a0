"""What a watcher has seen of one job; plain values, so that drawing never waits for reading."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

__all__ = ["DELEGATE", "Call", "CallState", "Note", "Pickup", "Piece", "Seen", "Todo", "View", "scope_of"]

#: The tool by which a deep agent hands work to a subagent.
DELEGATE = "task"


class CallState(StrEnum):
    """Where a tool call stands."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    #: Its step was run again after a pick-up and asked for other calls: nobody will answer this one.
    DROPPED = "dropped"
    #: The job ended before it was answered; a retry goes on with it.
    STOPPED = "stopped"


class Todo(NamedTuple):
    """One line of the agent's plan; `status` is pending, in_progress or completed."""

    content: str
    status: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call or subgraph. `scope` is the namespace that asked for it; `began` and `ended` are epoch seconds."""

    id: str
    name: str
    title: str
    scope: str
    epoch: int
    began: float
    ended: float | None = None
    state: CallState = CallState.PENDING
    #: The subagent that a `task` call asks for.
    agent: str = ""
    #: The task whose model asked for it, where the worker tells tasks; empty otherwise.
    task: str = ""
    #: How many gaps had been seen when it was asked for: an answer may lie in a later one.
    gaps: int = 0


class Piece(NamedTuple):
    """A message that is being streamed: its text, and the call that it is about to make, as far as they came."""

    id: str
    text: str = ""
    tool: str = ""
    args: str = ""


class Pickup(NamedTuple):
    """A change of hands: `kind` is the event's type; `place` is how many calls of the main agent came before it."""

    kind: str
    at: float
    text: str
    place: int
    #: In a word, why the worker before let go.
    why: str = ""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is shown of a job. Moments are epoch seconds by the clock of who sent the event."""

    job_id: str
    thread_id: str = ""
    agent: str = ""
    state: str = "waiting"
    worker: str = ""
    epoch: int = 0
    began: float | None = None
    ended: float | None = None
    #: When the last worker was last heard of: what a pick-up's pause is counted from.
    heard_at: float | None = None
    #: The position of the last event, what `--after` takes.
    last: str | None = None
    todos: tuple[Todo, ...] = ()
    calls: dict[str, Call] = {}
    #: A subgraph's scope to the call that it works for.
    links: dict[str, str] = {}
    #: A subgraph's scope to the name of the agent that works in it.
    names: dict[str, str] = {}
    #: A tool step's task to the call that it answers, where a worker tells.
    tasks: dict[str, str] = {}
    pickups: tuple[Pickup, ...] = ()
    #: Path to size in characters, None where only the call was seen.
    files: dict[str, int | None] = {}
    #: Ids of the messages that were taken in.
    messages: frozenset[str] = frozenset()
    #: A scope to the message that is being streamed.
    partial: dict[str, Piece] = {}
    #: A scope to what was said in it last.
    said: dict[str, str] = {}
    #: A message's id to its input and output tokens.
    tokens: dict[str, tuple[int, int]] = {}
    #: Event types that are shown by their number alone.
    others: dict[str, int] = {}
    events: int = 0
    gaps: int = 0
    error: str = ""

    @property
    def used(self) -> tuple[int, int]:
        """Input and output tokens so far."""
        return sum(used[0] for used in self.tokens.values()), sum(used[1] for used in self.tokens.values())

    @property
    def completed(self) -> int:
        """How many lines of the plan are done."""
        return sum(todo.status == "completed" for todo in self.todos)

    @property
    def asked(self) -> int:
        """How many tool calls were made and kept."""
        return sum(
            call.state is not CallState.DROPPED and not call.id.startswith("ns:") for call in self.calls.values()
        )


class Note(NamedTuple):
    """One thing that happened; `depth` is 0 for the main agent, 1 for its subagents and so on."""

    at: float
    label: str
    text: str
    depth: int = 0


class Seen(NamedTuple):
    """What an event makes of a view, and what is worth telling of it."""

    view: View
    notes: list[Note]


def scope_of(ns: list[str]) -> str:
    """A namespace as a key; '' is the main agent."""
    return "|".join(ns)
