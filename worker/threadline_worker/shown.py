"""What a job's log already shows of the steps that run again, so that nothing is shown a second time as new.

The log itself is asked, by the publisher, once this epoch's own transition is in it: from then on Redis refuses what
earlier epochs may still send, so nothing can be missed. A log that was lost shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from threadline.contract.events import EventId
from threadline.encryption import places
from threadline.encryption.vault import PLAIN, Vault
from threadline.errors import CannotDecrypt
from threadline_worker.origins import Origin

__all__ = ["Shown", "phase", "shown_before"]

_PAGE: Final = 50
#: Events that are looked at, backwards; a log keeps 10,000 by default.
_MOST: Final = 20_000


class _Logged(msgspec.Struct):
    """As much of an event as is needed here; `data` is not decoded."""

    type: str
    job_id: str = ""
    id: str = ""
    ns: tuple[str, ...] = ()
    step: int | None = None
    node: str | None = None
    task: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


_decoder: Final = msgspec.json.Decoder(_Logged)


class Shown:
    """`same_tasks`: tasks that run again have the ids that they had.

    They do if the graph goes on from a checkpoint. A graph that starts anew, because its input never became durable,
    gives new ids; then the step, the node and the names of the graphs around it tell.
    """

    def __init__(self, *, same_tasks: bool) -> None:
        self._same_tasks = same_tasks
        self._keys: set[tuple[Any, ...]] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, kind: str, ns: tuple[str, ...], origin: Origin, what: str) -> None:
        """An event of the log. `what` is its `phase`."""
        self._keys.add(self._key(kind, ns, origin, what))

    def has(self, kind: str, ns: tuple[str, ...], origin: Origin, what: str) -> bool:
        """Whether the log has an event of the same kind of the same task, or of the same step where there is none."""
        if origin.task is None and origin.step is None:
            return False
        return self._key(kind, ns, origin, what) in self._keys

    def _key(self, kind: str, ns: tuple[str, ...], origin: Origin, what: str) -> tuple[Any, ...]:
        if not self._same_tasks:
            names = tuple(segment.partition(":")[0] for segment in ns)
            return kind, what.partition(" ")[0], names, origin.step, origin.node
        if origin.task is not None:
            return kind, what, origin.task
        return kind, what, ns, origin.step


def phase(kind: str, data: Any) -> str:
    """What tells the events of one kind of one task apart: its start and its result, the calls of its tools."""
    if not isinstance(data, Mapping):
        return ""
    match kind:
        case "tasks":
            return "result" if "result" in data else "start"
        case "debug":
            return str(data.get("type"))
        case "tools":
            return f"{data.get('event')} {data.get('tool_call_id')}"
        case _:
            return ""


async def shown_before(
    redis: Any, log_key: str, epoch: int, step: int, *, same_tasks: bool, vault: Vault = PLAIN
) -> Shown:
    """Read the log backwards, as far as the step from which the run goes on. Raises redis' errors.

    LangGraph tells the values and the checkpoint of that step again, and runs the next one.
    """
    found, end = Shown(same_tasks=same_tasks), f"({epoch}-0"
    for _page in range(_MOST // _PAGE):
        page = await redis.xrevrange(log_key, max=end, count=_PAGE)
        for entry_id, fields in page:
            end = f"({entry_id.decode()}"
            if (event := _decoded(entry_id, fields)) is None:
                continue
            if not event.ns and event.step is not None and event.step < step:
                return found
            found.add(
                event.type, event.ns, Origin(None, event.node, event.task, event.step), _logged_phase(event, vault)
            )
        if len(page) < _PAGE:
            break
    return found


def _decoded(entry_id: bytes, fields: Mapping[bytes, bytes]) -> _Logged | None:
    """None: not ours; others may write into a log."""
    try:
        EventId.parse(entry_id.decode())
        return _decoder.decode(fields[b"e"])
    except (KeyError, ValueError, RecursionError):
        return None


def _logged_phase(event: _Logged, vault: Vault) -> str:
    if event.type not in {"tasks", "debug", "tools"}:
        return ""
    try:
        data = vault.open(msgspec.json.decode(event.data), places.event(event.job_id, event.id, event.type))
    except CannotDecrypt:  # nobody can read it: then nothing was shown
        return ""
    return phase(event.type, data)
