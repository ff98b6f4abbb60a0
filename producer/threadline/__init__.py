"""Threadline: long research agents as durable background jobs.

    from threadline import Client

    async with Client.from_env() as client:
        job = await client.enqueue("research", "What changed in PostgreSQL 18?")
        async for event in job.events():
            print(event.type, event.data)
        print(await job.result())

Importing this package loads nothing else; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadline.client import Client
    from threadline.contract.events import Event, EventType
    from threadline.contract.job import JobStatus
    from threadline.contract.states import State
    from threadline.contract.waiting import Waiting
    from threadline.errors import (
        BackendUnavailable,
        CannotDecrypt,
        ConfigurationError,
        InvalidJob,
        JobCancelled,
        JobFailed,
        JobInterrupted,
        JobNotFound,
        NeedsDatabase,
        NotMigrated,
        NotWaiting,
        ResultTimeout,
        ThreadBusy,
        ThreadlineError,
        ThreadMovedOn,
        ThreadOwnedByAnother,
        UnknownAgent,
    )
    from threadline.job import Job

__version__ = "0.2.0"

_HOMES = {
    "Client": "threadline.client",
    "Event": "threadline.contract.events",
    "EventType": "threadline.contract.events",
    "Job": "threadline.job",
    "JobStatus": "threadline.contract.job",
    "State": "threadline.contract.states",
    "Waiting": "threadline.contract.waiting",
}

__all__ = [
    "BackendUnavailable",
    "CannotDecrypt",
    "Client",
    "ConfigurationError",
    "Event",
    "EventType",
    "InvalidJob",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobInterrupted",
    "JobNotFound",
    "JobStatus",
    "NeedsDatabase",
    "NotMigrated",
    "NotWaiting",
    "ResultTimeout",
    "State",
    "ThreadBusy",
    "ThreadMovedOn",
    "ThreadOwnedByAnother",
    "ThreadlineError",
    "UnknownAgent",
    "Waiting",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in __all__ and not name.startswith("__"):
        return getattr(import_module(_HOMES.get(name, "threadline.errors")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
