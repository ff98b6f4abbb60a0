"""What a job shall do when it runs: events, then a result or the error that `result()` shall raise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from threadline.contract.codec import dumps, loads
from threadline.contract.events import Event
from threadline.contract.states import State
from threadline.errors import JobCancelled, JobFailed, JobInterrupted

__all__ = ["UNSET", "End", "Line", "Script", "Unset", "end_of", "lines_of"]


class Unset:
    """The type of UNSET."""

    def __repr__(self) -> str:
        return "UNSET"


#: No result was given: the job goes on running. (None is a result.)
UNSET: Final = Unset()


class Line(NamedTuple):
    """One event of a run: a stream mode and its data."""

    type: str
    data: Any
    ns: tuple[str, ...] = ()
    step: int | None = None


class End(NamedTuple):
    """How a run ends, as the ledger keeps it."""

    state: State
    result: Any = None
    code: str | None = None
    message: str | None = None
    interrupts: list[dict[str, Any]] | None = None


class Script(NamedTuple):
    """`result` may be a function of the job's input; UNSET without `raises`: the job goes on running."""

    lines: tuple[Line, ...]
    result: Any | Callable[[Any], Any] | Unset
    raises: JobFailed | JobCancelled | JobInterrupted | None

    def end(self, job_input: Any) -> End | None:
        """How this job ends; None: it does not."""
        if self.raises is None and isinstance(self.result, Unset):
            return None
        return end_of(self.result(job_input) if callable(self.result) else self.result, self.raises)


def end_of(result: Any, raises: JobFailed | JobCancelled | JobInterrupted | None) -> End:
    """The end that makes `Job.result` return or raise this. Raises ValueError for a result that is not JSON."""
    match raises:
        case JobFailed():
            return End(State.FAILED, code=raises.code, message=raises.message)
        case JobCancelled():
            return End(State.CANCELLED, code=raises.code)
        case JobInterrupted():
            return End(State.INTERRUPTED, interrupts=_json("interrupts", raises.interrupts))
        case _:
            return End(State.SUCCEEDED, result=None if isinstance(result, Unset) else _json("result", result))


def lines_of(events: Iterable[Event | tuple[Any, ...]]) -> tuple[Line, ...]:
    """Events, or (type, data) or (type, data, ns), as lines. Raises ValueError for data that are not JSON."""
    return tuple(_line(event) for event in events)


def _line(event: Event | tuple[Any, ...]) -> Line:
    if isinstance(event, Event):
        return Line(event.type, _json("data", event.data), tuple(event.ns), event.step)
    if not isinstance(event, tuple) or len(event) not in {2, 3}:
        raise ValueError(f"an event is (type, data), (type, data, ns) or a threadline.Event, not {event!r}")
    return Line(str(event[0]), _json("data", event[1]), tuple(event[2]) if len(event) > 2 else ())  # noqa: PLR2004 - ns


def _json(what: str, value: Any) -> Any:
    """What a reader gets of it: JSON, and no object that the test goes on changing."""
    try:
        return loads(dumps(value))
    except TypeError as error:
        raise ValueError(f"{what} {value!r} is not expressible as JSON: {error}") from error
