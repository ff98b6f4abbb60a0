"""The picture of a job: pure, never wider or higher than it is told, the newest always in sight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

from rich.console import Console
from rich.text import Text

from threadline.cli.describe import clock, counted, short
from threadline.cli.watch.branch import branch_line, known_worker, spinner
from threadline.cli.watch.lines import apart, beside
from threadline.cli.watch.model import Todo, View
from threadline.cli.watch.speech import speech
from threadline.cli.watch.tree import rows_of

__all__ = ["STATE_STYLES", "mark_of", "picture"]

STATE_STYLES: Final = {
    "running": "bold cyan",
    "succeeded": "bold green",
    "failed": "bold red",
    "cancelled": "bold yellow",
    "interrupted": "bold magenta",
}
_STATE_MARKS: Final = {"succeeded": "✔", "failed": "✖", "cancelled": "■", "interrupted": "?"}
_TODO_MARKS: Final = {"completed": ("✔", "green"), "in_progress": ("▶", "bold cyan")}
#: Below so many columns worker and tokens have lines of their own; below so many lines nothing stands apart, and then
#: the ids go; from so many columns on, plan and work stand beside each other.
_NARROW: Final = 60
_LOW: Final = 16
_LOWEST: Final = 10
_WIDE: Final = 140
_SAID_LINES: Final = 3
_SAID_AT_MOST: Final = 12
_PLAN_AT_MOST: Final = 13
#: With fewer lines a plan is one: how far it is, and what is being done.
_PLAN_LEAST: Final = 5
_ALL: Final = 10_000
_ERROR_LINES: Final = 3


def picture(view: View, *, now: float, width: int, height: int, notice: str = "") -> list[Text]:
    """Draw a view at the moment `now` (epoch seconds) into `width` columns and at most `height` lines.

    `notice` is something about the watching itself, as that Redis is away.
    """
    width = max(width, 20)
    gap = int(height >= _LOW)
    head = _head(view, now, width, low=height < _LOWEST)
    head += [Text(f"  ! {notice}", style="bold yellow")] * bool(notice)
    files = _files(view, width) if height >= _LOW else []
    said = _said(view, width)
    least = min(len(said), _SAID_LINES if gap else 1)
    room = height - len(head) - len(files) - least - gap * (bool(files) + bool(said) + 1)
    middle = _middle(view, now, width, room, gap)
    left = height - len(head) - len(files) - len(middle) - gap * (bool(middle) + bool(files) + bool(said))
    lines: list[Text] = []
    for part in (head, middle, files, _cut(view, said, max(least, left))):
        if part:
            lines += [*([Text()] * gap if lines else []), *part]
    for text in lines:
        text.no_wrap = True
        text.truncate(width, overflow="ellipsis")
    return lines[: max(height, 1)]


def _middle(view: View, now: float, width: int, room: int, gap: int) -> list[Text]:
    """Plan and work: one below the other, or beside each other where there is the width for it."""
    if width >= _WIDE and view.todos and view.calls:
        left = width // 3
        return beside(_plan(view.todos, room), _work(view, now, width - left - 2, room), left)
    needed = min(len(rows_of(view, _ALL)), _ALL) + bool(view.calls) + gap
    # What runs comes first, but the plan does not vanish behind it.
    plan = _plan(view.todos, max(1, min(_PLAN_AT_MOST, max(room - needed, room // 2))))
    work = _work(view, now, width, room - len(plan) - gap * bool(plan))
    return [*plan, *([Text()] * gap if plan and work else []), *work]


def mark_of(view: View, now: float) -> tuple[str, str]:
    """The sign of a job's state, and its style."""
    style = STATE_STYLES.get(view.state, "bold")
    return _STATE_MARKS.get(view.state) or spinner(now), style


def _head(view: View, now: float, width: int, *, low: bool) -> list[Text]:
    mark, style = mark_of(view, now)
    first = Text.assemble((f"{mark} ", style), (view.agent or "job", "bold"), "  ", (view.state, style))
    if view.began is not None:
        first.append(f"  {clock((view.ended or now) - view.began)}")
    worker = Text(f"  on {known_worker(view.worker)}" if view.worker else "", style="cyan")
    facts = Text(" · ".join(_facts(view)), style="dim")
    if width >= _NARROW:
        lines = [apart(Text.assemble(first, worker), facts, width)]
    else:
        lines = [line for line in (first, worker, Text(f"  {facts.plain}", style="dim")) if line.plain.strip()]
    if not low:
        thread = f"   thread {view.thread_id}" if view.thread_id else ""
        lines.append(Text(f"  job {view.job_id}{thread}", style="dim"))
    if view.error:
        lines += [Text(f"  {line.plain}", style=style) for line in _wrapped(view.error, width - 2)[:_ERROR_LINES]]
    return lines


def _facts(view: View) -> Iterable[str]:
    if view.gaps:
        yield counted(view.gaps, "gap")
    for kind, count in view.others.items():
        yield f"{count} {kind}"
    given, made = view.used
    if given or made:
        yield f"{short(given)} tokens in, {short(made)} out"


def _plan(todos: Sequence[Todo], limit: int) -> list[Text]:
    """At most `limit` lines, around what is being done; what is left out is counted."""
    if not todos:
        return []
    done = sum(todo.status == "completed" for todo in todos)
    title = Text.assemble(("Plan", "bold"), (f"  {done}/{len(todos)}", "dim"))
    current = next((i for i, todo in enumerate(todos) if todo.status != "completed"), len(todos) - 1)
    if len(todos) < limit:
        return [title, *map(_todo, todos)]
    if limit < _PLAN_LEAST:
        return [Text.assemble(title, _todo(todos[current]))]
    shown = limit - 3
    first = max(0, min(current - shown // 2, len(todos) - shown))
    rest = len(todos) - first - shown
    before = f"… {first} done" if first <= done else f"… {first} more"
    lines = [Text(f"  {before}", style="dim")] * bool(first)
    lines += map(_todo, todos[first : first + shown])
    lines += [Text(f"  … {rest} more", style="dim")] * bool(rest)
    return [title, *lines]


def _todo(todo: Todo) -> Text:
    mark, style = _TODO_MARKS.get(todo.status, ("○", "dim"))
    return Text.assemble((f"  {mark} ", style), (todo.content, "dim" if todo.status == "completed" else ""))


def _work(view: View, now: float, width: int, room: int) -> list[Text]:
    """A title and the tree of calls in at most `room` lines."""
    if room <= 1 or not (rows := rows_of(view, room - 1)):
        return []
    title = Text.assemble(("Work", "bold"), (f"  {counted(view.asked, 'call')}", "dim"))
    return [title, *(branch_line(row, now, width) for row in rows)]


def _files(view: View, width: int) -> list[Text]:
    """The newest files, as many as fit on a line, and how many more there are."""
    names = [path if size is None else f"{path} ({short(size)})" for path, size in reversed(view.files.items())]
    line = Text.assemble(("Files", "bold"))
    for index, name in enumerate(names):
        rest = f"  … {len(names) - index - 1} more" if index < len(names) - 1 else ""
        if index and line.cell_len + Text(f"  {name}{rest}").cell_len > width:
            line.append(f"  … {len(names) - index} more", style="dim")
            break
        line.append(f"  {name}")
    return [line] * bool(names)


def _said(view: View, width: int) -> list[Text]:
    """What the main agent is saying or writing, or what it said last."""
    piece = view.partial.get("")
    words = speech(piece) if piece else " ".join(view.said.get("", "").split())
    return [Text.assemble(("▏ ", "cyan"), (line.plain, "italic")) for line in _wrapped(words[-4000:], width - 2)]


def _cut(view: View, said: list[Text], limit: int) -> list[Text]:
    """The end of what is still being said, the beginning of what was."""
    limit = min(limit, _SAID_AT_MOST)
    if len(said) <= limit or "" in view.partial:
        return said[-limit:]
    if limit == 1:
        return said[:1]
    return [*said[: limit - 1], Text.assemble(("▏ ", "cyan"), (f"… {len(said) - limit + 1} more lines", "dim"))]


def _wrapped(text: str, width: int) -> list[Text]:
    return list(Text(text).wrap(_paper(), width)) if text else []


@cache
def _paper() -> Console:
    """Text.wrap wants a console; this one draws nothing."""
    return Console(width=80)
