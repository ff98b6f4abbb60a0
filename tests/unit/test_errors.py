"""The public names are pinned, every error has the one root, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import threadline
from threadline import errors
from threadline.contract.keys import Keys
from threadline.environment import number, unknown_variables
from threadline.errors import ConfigurationError, ThreadlineError
from threadline.settings import ClientSettings

PUBLIC = [
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


def test_the_public_names_are_pinned() -> None:
    assert threadline.__all__ == PUBLIC
    assert all(getattr(threadline, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        threadline.Clients  # noqa: B018 - the case


def test_every_error_has_the_one_root_and_stands_in_the_drawn_tree() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert all(issubclass(kind, ThreadlineError) for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)
    drawn = errors.__doc__ or ""
    assert [name for name in errors.__all__ if name not in drawn] == []


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(errors.InvalidJob, ValueError)
    assert issubclass(errors.JobNotFound, LookupError)
    assert issubclass(errors.ResultTimeout, TimeoutError)
    assert issubclass(errors.BackendUnavailable, ConnectionError)


def test_ends_carry_what_a_program_needs() -> None:
    failed = errors.JobFailed("timeout", "too slow")
    assert (failed.code, failed.message, str(failed)) == ("timeout", "too slow", "timeout: too slow")
    assert errors.JobCancelled("replaced").code == "replaced"
    assert errors.JobInterrupted([{"id": "i", "value": 1}]).interrupts == [{"id": "i", "value": 1}]
    assert errors.ThreadBusy("busy", job_id="j").job_id == "j"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import threadline", ("redis", "psycopg", "psycopg_pool", "msgspec", "asyncio")),
        ("from threadline import JobFailed, ThreadBusy", ("redis", "psycopg", "msgspec")),
        ("from threadline.contract import arq_message, events, job, keys, states, signature", ("redis", "psycopg")),
        ("from threadline import Client", ("langgraph", "langchain_core", "arq", "pydantic", "threadline_worker")),
    ],
)
def test_importing_loads_only_what_is_needed(statement: str, absent: tuple[str, ...]) -> None:
    check = f"import sys; {statement}; print(*(name for name in {absent!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_settings_come_from_the_environment() -> None:
    settings = ClientSettings.from_env(
        {"REDIS_URL": "redis://h", "THREADLINE_NAMESPACE": "staging", "DATABASE_URL": ""}
    )
    assert (settings.redis_url, settings.database_url, settings.keys) == ("redis://h", None, Keys("staging"))
    assert (settings.event_ttl_seconds, settings.event_max, settings.lease_seconds) == (86_400, 10_000, 15.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THREADLINE_LEASE_SECONDS", "soon"),
        ("THREADLINE_LEASE_SECONDS", "nan"),
        ("THREADLINE_LEASE_SECONDS", "inf"),
        ("THREADLINE_LEASE_SECONDS", "-1"),
        ("THREADLINE_EVENT_TTL_SECONDS", "0.5"),
        ("THREADLINE_EVENT_MAX", "0"),
        ("THREADLINE_NAMESPACE", "Prod"),
        ("THREADLINE_NAMESPACE", "a b"),
        ("THREADLINE_NAMESPACE", 'x"; DROP'),
        ("THREADLINE_NAMESPACE", "a" * 41),
        ("THREADLINE_NAMESPACE", "a\n"),
        ("THREADLINE_ENQUEUE_KEYS", "x"),
    ],
)
def test_a_variable_without_a_meaning_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ClientSettings.from_env({name: value})


def test_an_empty_variable_is_as_unset() -> None:
    assert number({"X": " "}, "X", 7.0) == 7.0
    assert number({"X": "1e3"}, "X", 7.0) == 1_000.0


def test_a_mistyped_variable_gets_the_nearest_name() -> None:
    env = {"THREADLINE_LEASE": "1", "THREADLINE_QQQ": "1", "PATH": "x", "THREADLINE_MODEL": "offline"}
    assert unknown_variables(env) == [
        "THREADLINE_LEASE is not known; did you mean THREADLINE_LEASE_SECONDS?",
        "THREADLINE_QQQ is not known",
    ]
