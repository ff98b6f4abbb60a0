"""The picture of a thread: a line for each job that is over, the newest job as it stands."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from threadline.cli.describe import counted
from threadline.cli.watch.closing import closing
from threadline.cli.watch.draw import mark_of, picture
from threadline.cli.watch.live import Moving
from threadline.cli.watch.model import View
from threadline.cli.watch.reduce import reduce
from threadline.contract.events import Event, EventType

__all__ = ["ThreadPicture", "thread_picture"]

#: A thread may live for years: of older jobs only their number is kept.
_KEPT: Final = 50
_LEAST: Final = 3


class ThreadPicture(Moving):
    """Draws the jobs of one thread."""

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        self._views: tuple[View, ...] = ()
        self._earlier = 0
        super().__init__(self._picture)

    def take(self, event: Event) -> None:
        """See the event. The views are one value, so the drawing thread needs no lock."""
        if not event.job_id and event.type == EventType.GAP:
            self.tell("whole jobs may be missing here")
            return
        before = [view for view in self._views if view.job_id != event.job_id]
        known = [view for view in self._views if view.job_id == event.job_id]
        view, _ = reduce(known[0] if known else View(job_id=event.job_id, thread_id=self._thread_id), event)
        self._earlier += max(0, len(before) + 1 - _KEPT)
        self._views = (*before, view)[-_KEPT:]

    def _picture(self, now: float, width: int, height: int, notice: str) -> list[Text]:
        return thread_picture(
            self._thread_id, self._views, earlier=self._earlier, now=now, width=width, height=height, notice=notice
        )


def thread_picture(
    thread_id: str, views: tuple[View, ...], *, earlier: int, now: float, width: int, height: int, notice: str = ""
) -> list[Text]:
    """Draw the jobs in their order; `earlier` ones are only counted."""
    count = earlier + len(views)
    title = Text.assemble(("Thread ", "bold"), (thread_id, "bold"), (f"  {counted(count, 'job')}", "dim"))
    lines = [title]
    if not views:
        lines += [Text(f"  ! {notice}", style="bold yellow")] * bool(notice)
    over = [_line(view, now) for view in views[:-1]]
    room = max(_LEAST, height // 3)
    if len(over) + bool(earlier) > room:
        over = over[-(room - 1) :]
    if hidden := count - 1 - len(over):
        lines += [Text(f"  … {hidden} more", style="dim")] * (hidden > 0)
    lines += over
    for text in lines:
        text.no_wrap = True
        text.truncate(width, overflow="ellipsis")
    if views:
        lines.append(Text())
        lines += picture(views[-1], now=now, width=width, height=max(1, height - len(lines)), notice=notice)
    return lines[: max(height, 1)]


def _line(view: View, now: float) -> Text:
    mark, style = mark_of(view, now)
    return Text.assemble("  ", (f"{mark} ", style), (view.agent or "job", "bold"), f"  {closing(view)}")
