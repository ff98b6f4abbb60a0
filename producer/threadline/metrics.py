"""`threadline_jobs_enqueued_total{agent}` of a producer: one count for each job that was made, and bounded series.

prometheus-client is imported when a registry is given, not before: the base install has none.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from threadline.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter

__all__ = ["OTHER", "Capped", "JobsEnqueued", "jobs_enqueued"]

#: What stands in a label for all values above its bound.
OTHER: Final = "other"
#: Agents that a producer counts by name.
_AGENTS: Final = 100
_MEANING: Final = "Jobs that this producer made; no worker has it."


class Capped:
    """Bounds a label: `always`, the first `room` other values, and `other` for all that come later. Thread-safe."""

    def __init__(self, room: int, always: Iterable[str] = ()) -> None:
        self._room = room
        self._always = frozenset(always)
        self._met: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """The value, or `other`."""
        if value in self._always or value in self._met:
            return value
        with self._lock:
            if len(self._met) < self._room:
                self._met.add(value)
        return value if value in self._met else OTHER


class JobsEnqueued:
    """The counter in a registry; `jobs_enqueued` makes it."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self._agent = Capped(_AGENTS)

    def count(self, agent: str) -> None:
        """One more job of this agent exists."""
        self.counter.labels(agent=self._agent(agent)).inc()


def jobs_enqueued(registry: CollectorRegistry) -> JobsEnqueued:
    """The counter of this registry: all clients that are given the same registry share one.

    Raises ConfigurationError without prometheus-client, or if the registry has another metric of that name.
    """
    with _making:
        if (known := _made.get(registry)) is None:
            known = _made[registry] = JobsEnqueued(_counter(registry))
        return known


def _counter(registry: CollectorRegistry) -> Counter:
    try:
        from prometheus_client import Counter  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError("metrics= needs prometheus-client: pip install 'threadline[metrics]'") from error
    try:
        return Counter("threadline_jobs_enqueued_total", _MEANING, ("agent",), registry=registry)
    except ValueError as error:
        raise ConfigurationError(f"metrics= cannot take threadline_jobs_enqueued_total: {error}") from error


_making: Final = threading.Lock()
#: A registry that nobody holds any more takes its counter with it.
_made: Final[weakref.WeakKeyDictionary[CollectorRegistry, JobsEnqueued]] = weakref.WeakKeyDictionary()
