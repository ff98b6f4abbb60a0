"""The picture of a job: pure, never wider or higher than it is told, the newest always in sight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group
from rich.text import Text

from threadline.cli.describe import clock, counted, short
from threadline.cli.watch.model import Call, CallState, Todo, View
from threadline.cli.watch.tree import Row, rows_of

__all__ = ["picture"]

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_STATE_STYLES: Final = {
    "running": "bold cyan",
    "succeeded": "bold green",
    "failed": "bold red",
    "cancelled": "bold yellow",
    "interrupted": "bold magenta",
}
_STATE_MARKS: Final = {"succeeded": "✔", "failed": "✖", "cancelled": "■", "interrupted": "?"}
_TODO_MARKS: Final = {"completed": ("✔", "green"), "in_progress": ("▶", "bold cyan")}
_SAID_LINES: Final = 3
_LEAST_WORK: Final = 3


def picture(view: View, *, now: float, width: int, height: int) -> Group:
    """Draw a view at the moment `now` (epoch seconds) into `width` columns and at most `height` lines."""
    width = max(width, 20)
    head = _head(view, now, width)
    end = [*_files(view), *_said(view, width)]
    room = height - len(head) - len(end) - bool(end)
    plan = _plan(view.todos, max(_LEAST_WORK, min(room // 2, 12)))
    work = _work(view, now, width, max(_LEAST_WORK, room - len(plan) - 2 * bool(plan) - 1))
    lines: list[Text] = []
    for part in (head, plan, work, end):
        if part:
            lines += [Text(), *part] if lines else part
    for text in lines:
        text.no_wrap = True
        text.truncate(width, overflow="ellipsis")
    return Group(*lines[: max(height, 1)])


def _head(view: View, now: float, width: int) -> list[Text]:
    style = _STATE_STYLES.get(view.state, "bold")
    mark = _STATE_MARKS.get(view.state) or _spinner(now)
    first = Text.assemble((f"{mark} ", style), (view.agent or "job", "bold"), "  ", (view.state, style))
    if view.began is not None:
        first.append(f"  {clock((view.ended or now) - view.began)}")
    if view.worker:
        first.append(f"  on {view.worker}", style="cyan")
    facts = list(_facts(view))
    lines = [_apart(first, Text("  ".join(facts), style="dim"), width)] if facts else [first]
    thread = f"   thread {view.thread_id}" if view.thread_id else ""
    lines.append(Text(f"  job {view.job_id}{thread}", style="dim"))
    if view.error:
        lines.append(Text(f"  {view.error}", style=style))
    return lines


def _facts(view: View) -> Iterable[str]:
    given, made = view.used
    if given or made:
        yield f"{short(given)} in {short(made)} out"
    if view.gaps:
        yield counted(view.gaps, "gap")
    for kind, count in view.others.items():
        yield f"{count} {kind}"


def _plan(todos: Sequence[Todo], limit: int) -> list[Text]:
    """A title and at most `limit` lines, around what is being done."""
    if not todos:
        return []
    done = sum(todo.status == "completed" for todo in todos)
    current = next((i for i, todo in enumerate(todos) if todo.status != "completed"), len(todos) - 1)
    first = max(0, min(current - 1, len(todos) - limit))
    shown = todos[first : first + limit]
    title = Text.assemble(("Plan", "bold"), (f"  {done}/{len(todos)}", "dim"))
    if len(shown) < len(todos):
        title.append(f"  ({len(todos) - len(shown)} not shown)", style="dim")
    return [title, *map(_todo, shown)]


def _todo(todo: Todo) -> Text:
    mark, style = _TODO_MARKS.get(todo.status, ("○", "dim"))
    return Text.assemble((f"  {mark} ", style), (todo.content, "dim" if todo.status == "completed" else ""))


def _work(view: View, now: float, width: int, room: int) -> list[Text]:
    """The tree of calls, its newest rows if it is higher than `room`."""
    rows = rows_of(view)
    if not rows:
        return []
    asked = sum(not call.id.startswith("ns:") for call in view.calls.values())
    title = Text.assemble(("Work", "bold"), (f"  {counted(asked, 'call')}", "dim"))
    left = room - 1
    if len(rows) > left:
        rows = _newest(rows, left)
        title.append("  (earlier ones not shown)", style="dim")
    return [title, *(_row(row, now, width) for row in rows)]


def _newest(rows: list[Row], room: int) -> list[Row]:
    """The last rows, and above them the calls that they belong to."""
    kept = rows[-room:]
    above: list[Row] = []
    depth = kept[0].depth
    for row in reversed(rows[: len(rows) - room]):
        if row.depth < depth:
            above.insert(0, row)
            depth = row.depth
    return [*above, *kept[len(above) :]]


def _row(row: Row, now: float, width: int) -> Text:
    indent = "  " * (row.depth + 1)
    if row.call is None:
        return Text(f"{indent}{row.text}", style="yellow")
    mark, style = _mark(row.call, now)
    text = Text.assemble(indent, (f"{mark} ", style), (row.call.agent or row.call.name, "bold" * (row.depth == 0)))
    if row.call.title:
        text.append(f" {row.call.title}", style="dim")
    if row.text:
        text.append(f"  {row.text}", style="dim")
    return _apart(text, Text(_took(row.call, now), style="dim"), width)


def _mark(call: Call, now: float) -> tuple[str, str]:
    match call.state:
        case CallState.DONE:
            return "✔", "green"
        case CallState.FAILED:
            return "✖", "red"
        case CallState.DROPPED:
            return "↻", "yellow"
        case _:
            return _spinner(now), "cyan"


def _took(call: Call, now: float) -> str:
    if call.state is CallState.DROPPED:
        return "not kept"
    seconds = max(0.0, (call.ended if call.ended is not None else now) - call.began)
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)  # noqa: PLR2004 - a minute


def _files(view: View) -> list[Text]:
    if not view.files:
        return []
    names = [path if size is None else f"{path} ({short(size)})" for path, size in view.files.items()]
    return [Text.assemble(("Files", "bold"), "  ", "  ".join(reversed(names)))]


def _said(view: View, width: int) -> list[Text]:
    """The end of what the main agent is saying, or the whole of what it said last, in three lines."""
    streaming = view.partial.get("")
    words = " ".join((streaming[1] if streaming else view.said.get("", ""))[-2000:].split())
    if not words:
        return []
    text = Text(words, style="italic", no_wrap=False)
    lines = _wrapped(text, width - 2)
    lines = lines[-_SAID_LINES:] if streaming else lines[:_SAID_LINES]
    return [Text.assemble(("▏ ", "cyan"), line) for line in lines]


def _wrapped(text: Text, width: int) -> list[Text]:
    from rich.console import Console  # noqa: PLC0415 - Text.wrap wants one; it draws nothing

    return list(text.wrap(Console(width=width), width))


def _apart(left: Text, right: Text, width: int) -> Text:
    """Left and right on one line; the left one gives way."""
    space = width - right.cell_len - 1
    left = left.copy()
    left.truncate(max(space, 1), overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _spinner(now: float) -> str:
    return _SPINNER[int(now * 8) % len(_SPINNER)]
