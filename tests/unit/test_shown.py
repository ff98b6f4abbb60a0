"""What is marked as a rerun: exactly what the log shows already of the steps that run again."""

from __future__ import annotations

from typing import Any

import pytest

from threadline.contract.events import Event, EventId, encode_event
from threadline_worker.origins import Origin
from threadline_worker.shown import Shown, phase, shown_before


class Log:
    """A stream, and how many entries were asked of it."""

    def __init__(self, *events: Event) -> None:
        self.entries = [(str(event.id).encode(), {b"e": encode_event(event)}) for event in events]
        self.read = 0

    async def xrevrange(self, _key: str, *, max: str, count: int) -> list[Any]:  # noqa: A002 - redis-py's name
        end = EventId.parse(max.removeprefix("("))
        found = [entry for entry in self.entries if EventId.parse(entry[0].decode()) < end]
        page = sorted(found, key=lambda entry: EventId.parse(entry[0].decode()), reverse=True)[:count]
        self.read += len(page)
        return page


def event(event_id: str, kind: str = "updates", ns: str = "", **more: Any) -> Event:
    return Event(job_id="j", thread_id="t", type=kind, id=event_id, ns=ns.split("|") if ns else [], at="x", **more)


async def read(log: Log, *, epoch: int = 3, step: int, same_tasks: bool = True) -> Shown:
    return await shown_before(log, "log", epoch, step, same_tasks=same_tasks)


def has(shown: Shown, kind: str = "updates", ns: str = "", data: Any = None, **origin: Any) -> bool:
    return shown.has(kind, tuple(ns.split("|")) if ns else (), Origin(**origin), phase(kind, data))


async def test_tasks_of_the_step_that_runs_again_were_shown_as_far_as_they_were() -> None:
    """Two of three parallel tasks had begun, one of them within a subgraph; none of the third was shown."""
    shown = await read(
        Log(
            event("1-1", "started"),
            event("1-2", task="t0", step=1),
            event("1-3", task="a", step=2, node="tools"),
            event("1-4", "messages", "tools:b", task="inner", step=1),
            event("1-5", "tasks", task="b", step=2, data={"id": "b", "input": 1}),
            event("2-1", "released"),
            event("3-1", "resumed", step=1),
            event("3-2", task="of ours", step=2),
        ),
        step=1,
    )
    assert has(shown, task="a", step=2)
    assert has(shown, "messages", "tools:b", task="inner", step=1)
    assert has(shown, "tasks", data={"id": "b"}, task="b")
    assert not has(shown, "tasks", data={"id": "b", "result": 1}, task="b")  # its end was not shown
    assert not has(shown, task="b", step=2)
    assert not has(shown, task="c", step=2)
    assert not has(shown, task="of ours", step=2)


async def test_a_step_that_was_committed_and_not_shown_is_no_rerun() -> None:
    """Killed between the commit of step 2 and its events: only its values come, for the first time."""
    shown = await read(Log(event("1-2", "values", step=1), event("1-3", task="a", step=1)), step=2)
    assert not has(shown, "values", step=2)
    assert not has(shown, task="b", step=3)


async def test_the_values_of_the_step_from_which_it_goes_on_are_told_again() -> None:
    log = Log(event("1-2", "values", step=1), event("1-3", "values", step=2), event("1-4", "values", "a:1", step=2))
    shown = await read(log, step=2)
    assert has(shown, "values", step=2)
    assert not has(shown, "values", step=3)
    assert has(shown, "values", "a:1", step=2)
    assert not has(shown, "values", "a:2", step=2)


async def test_a_log_that_was_lost_shows_nothing() -> None:
    assert len(await read(Log(), step=5)) == 0


async def test_nothing_is_known_of_events_without_task_and_step() -> None:
    assert not has(await read(Log(event("1-2", "custom")), step=0), "custom")


async def test_two_crashes_in_one_step() -> None:
    """The second try told less than the first."""
    shown = await read(
        Log(
            event("1-2", "values", step=1),
            event("1-3", task="a", step=2),
            event("3-1", "resumed", step=1),
            event("3-2", "values", step=1, rerun=True),
            event("3-3", "custom", task="b", step=2),
        ),
        epoch=5,
        step=1,
    )
    assert has(shown, task="a", step=2)
    assert has(shown, "custom", task="b", step=2)


async def test_no_more_of_the_log_is_read_than_is_needed() -> None:
    log = Log(*(event(f"1-{n}", task=str(n), step=n) for n in range(2, 5_000)))
    shown = await read(log, step=4_990)
    assert has(shown, task="4999", step=4_999)
    assert log.read == 50


async def test_a_graph_that_starts_anew_has_other_task_ids() -> None:
    """Its input had not become durable; LangGraph makes new ids from the new checkpoint's."""
    log = Log(event("1-2", task="old", step=1, node="model"), event("1-3", "custom", "sub:old", step=0, node="n"))
    shown = await read(log, step=-2, same_tasks=False)
    assert has(shown, task="new", step=1, node="model")
    assert not has(shown, task="new", step=1, node="tools")
    assert has(shown, "custom", "sub:new", step=0, node="n")


@pytest.mark.parametrize("fields", [{}, {b"e": b"\xff"}, {b"e": b"[]"}, {b"e": b'{"type":7}'}])
async def test_entries_of_others_are_skipped(fields: dict[bytes, bytes]) -> None:
    log = Log(event("1-2", task="a", step=1))
    log.entries.append((b"1-3", fields))
    assert has(await read(log, step=0), task="a", step=1)
