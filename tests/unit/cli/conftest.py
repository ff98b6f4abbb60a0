"""Events as a worker sends them, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from threadline.cli.watch.model import Note, View
from threadline.cli.watch.reduce import reduce
from threadline.contract.events import Event, now

BEGAN = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def ai(
    key: str, text: Any = "", *calls: tuple[str, str, dict[str, Any]], name: str | None = None, tokens: int = 0
) -> dict[str, Any]:
    """A model's message: `calls` are (id, tool, arguments)."""
    return {
        "type": "ai",
        "data": {
            "id": key,
            "name": name,
            "content": text,
            "tool_calls": [{"id": call, "name": tool, "args": args} for call, tool, args in calls],
            "usage_metadata": {"input_tokens": tokens, "output_tokens": 1} if tokens else None,
        },
    }


def tool(call: str, text: str = "ok", status: str = "success") -> dict[str, Any]:
    """A tool's answer to a call."""
    return {"type": "tool", "data": {"tool_call_id": call, "content": text, "status": status}}


class Story:
    """A job as its events tell it; each event comes a second after the one before."""

    ai = staticmethod(ai)
    tool = staticmethod(tool)

    def __init__(self) -> None:
        self.view = View(job_id="j")
        self.notes: list[Note] = []
        self.epoch, self.n, self.seconds = 0, 0, 0

    def tell(
        self, kind: str, data: Any = None, ns: list[str] | None = None, *, at: str | None = None, **origin: Any
    ) -> list[Note]:
        """One event; gives what is worth telling of it. `origin` is agent, node, task, rerun."""
        lifecycle = kind in {"started", "resumed", "released", "retried", "succeeded", "failed", "cancelled"}
        self.epoch, self.n = (self.epoch + 1, 1) if lifecycle else (self.epoch, self.n + 1)
        self.seconds += 1
        event = Event(
            job_id="j",
            thread_id="t",
            type=kind,
            id=None if kind == "gap" else f"{self.epoch}-{self.n}",
            ns=ns or [],
            data=data,
            at=now(BEGAN + timedelta(seconds=self.seconds)) if at is None else at,
            **origin,
        )
        self.view, notes = reduce(self.view, event)
        self.notes += notes
        return notes

    def model(self, message: dict[str, Any], ns: list[str] | None = None, **origin: Any) -> list[Note]:
        """The model node's update."""
        return self.tell("updates", {"model": {"messages": [message]}}, ns, **origin)

    def piece(self, key: str, text: str = "", ns: list[str] | None = None, **data: Any) -> list[Note]:
        """A piece of a streamed message."""
        origin = {name: data.pop(name) for name in ("task", "rerun") if name in data}
        chunk = {"type": "AIMessageChunk", "data": {"id": key, "content": text, **data}}
        return self.tell("messages", [chunk, {}], ns, **origin)

    def tools(self, *messages: dict[str, Any], ns: list[str] | None = None, **more: Any) -> list[Note]:
        """The tools node's update."""
        return self.tell("updates", {"tools": {"messages": list(messages), **more}}, ns)

    def start(self) -> None:
        """Queued, and claimed by worker-1."""
        self.tell("queued", {"agent": "research"})
        self.tell("started", {"worker_id": "worker-1", "epoch": 1})

    def pick_up(self) -> None:
        """worker-1 dies, worker-2 goes on."""
        self.tell("released", {"worker_id": "worker-1", "code": "dead_worker"})
        self.tell("resumed", {"worker_id": "worker-2", "from_worker": "worker-1"})


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def new_story() -> type[Story]:
    return Story


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def threadline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """The command line in this process, without any server named."""
    for name in ("REDIS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def call(*args: str) -> Ended:
        from threadline.cli.app import run

        with pytest.raises(SystemExit) as ended:
            run(list(args))
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return call
