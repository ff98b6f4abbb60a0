"""A job in one line, once it is over."""

from __future__ import annotations

from threadline.cli.describe import clock, counted
from threadline.cli.watch.model import View

__all__ = ["closing"]


def closing(view: View) -> str:
    """How it ended, how long it took and what it made."""
    given, made = view.used
    counts = {
        "call": view.asked,
        "file": len(view.files),
        "pick-up": sum(pickup.kind == "resumed" for pickup in view.pickups),
        "token": given + made,
        "event": view.events,
        "gap": view.gaps,
    }
    facts = ", ".join(counted(count, what) for what, count in counts.items() if count)
    took = clock((view.ended or 0.0) - (view.began or 0.0))
    return f"{view.state} in {took}" + (f" ({facts})" if facts else "")
