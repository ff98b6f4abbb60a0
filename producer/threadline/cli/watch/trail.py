"""How far a watch has come, so that whoever stops it can be told how to go on."""

from __future__ import annotations

from threadline.contract.events import Event

__all__ = ["Trail"]


class Trail:
    """The last position that was shown."""

    def __init__(self) -> None:
        self._job_id = ""
        self._id = ""

    def saw(self, event: Event) -> None:
        """Remember the event's position; a gap has none."""
        if event.id:
            self._job_id, self._id = event.job_id, event.id

    def command(self, subject: str, *, thread: bool, exact: bool) -> str:
        """The command that goes on; `exact` behind the last position, else from the beginning, as a picture needs."""
        after = f"{self._job_id}/{self._id}" if thread else self._id
        tail = f" --after {after}" if exact and self._id else ""
        return f"threadline watch {'--thread ' if thread else ''}{subject}{tail}"
