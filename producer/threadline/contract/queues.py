"""Which queue a job goes into: decided once, by its producer; whoever names none is in `default`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from threadline.errors import ConfigurationError, InvalidJob

__all__ = ["DEFAULT_QUEUE", "QueueMap", "as_queue_map", "check_queue", "parse_queue_map", "parse_queues"]

DEFAULT_QUEUE: Final = "default"
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_RULE: Final = "use 1-40 of a-z, 0-9, _ and -"
_USER: Final = "user:"


class QueueMap(msgspec.Struct, frozen=True):
    """Rules by agent (`research`) and by user (`user:42`), to queues. Raises ConfigurationError for a malformed one."""

    rules: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for who, queue in self.rules.items():
            if not isinstance(who, str) or not who.removeprefix(_USER):
                raise ConfigurationError(f"queue rule {who!r}: name an agent, or user:ID")
            if not isinstance(queue, str) or not _NAME.fullmatch(queue):
                raise ConfigurationError(f"queue {queue!r} of {who}: {_RULE}")

    @property
    def names(self) -> tuple[str, ...]:
        """All queues that it names, and `default`, which is last unless it is named."""
        return tuple(dict.fromkeys((*self.rules.values(), DEFAULT_QUEUE)))

    def queue_of(self, agent: str, user_id: str) -> str | None:
        """What the user's rule says, or else the agent's; None where neither has one."""
        return self.rules.get(_USER + user_id) or self.rules.get(agent)


def parse_queue_map(text: str, variable: str = "THREADLINE_QUEUES") -> QueueMap:
    """Read `agent=queue,user:ID=queue,…`. Raises ConfigurationError that names the variable.

    An id may have `=` in it, but no comma: such a user's rule is for `Client(queues={…})`.
    """
    rules: dict[str, str] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        who, equals, queue = (part.strip() for part in item.rpartition("="))
        if not equals:
            raise ConfigurationError(f"{variable}: {item!r} is no rule: write agent=queue or user:ID=queue, …")
        if who in rules:
            raise ConfigurationError(f"{variable}: {who} has two rules: leave one")
        rules[who] = queue
    try:
        return QueueMap(rules)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error}") from error


def parse_queues(names: str, variable: str = "THREADLINE_WORKER_QUEUES") -> tuple[str, ...]:
    """Read `deep,default`, each once. Raises ConfigurationError that names the variable."""
    found = tuple(dict.fromkeys(filter(None, (name.strip() for name in names.split(",")))))
    for name in found:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{variable}: queue {name!r}: {_RULE}")
    return found


def check_queue(value: str) -> str:
    """Return the queue's name; InvalidJob unless it is 1-40 of a-z, 0-9, `_` and `-`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidJob(f"queue {str(value)[:120]!r}: {_RULE}")
    return value


def as_queue_map(queues: QueueMap | Mapping[str, str]) -> QueueMap:
    """A map as a caller gives it. Raises ConfigurationError."""
    return queues if isinstance(queues, QueueMap) else QueueMap(dict(queues))
