"""`threadline.sync` is the same, blocking: names, parameters, defaults, types and docstrings are compared."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from threadline import client, job, sync

#: Where the blocking class has another name for the same.
RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
#: What a Job asks its client for; no part of the contract.
BETWEEN_THEM = {"snapshot", "cancel", "events", "has_ledger", "has_redis"}
#: What a type is called in blocking code.
BLOCKING = (("AsyncConnection", "Connection"), ("AsyncGenerator", "Generator"))


def methods(kind: type) -> dict[str, Callable[..., object]]:
    """The public calls of a class, and those that `with` makes."""
    return {
        name: inspect.unwrap(getattr(kind, name))
        for name in vars(kind)
        if (not name.startswith("_") or name in {*RENAMED, *RENAMED.values(), "__init__", "__repr__"})
        and callable(getattr(kind, name))
    }


def blocking(annotation: object) -> str:
    """An annotation of the async class as the blocking one has it."""
    text = str(annotation)
    for name, other in BLOCKING:
        text = text.replace(name, other)
    return re.sub(r"Generator\[Event, None\]", "Generator[Event, None, None]", text)


def parameters(call: Callable[..., object]) -> list[tuple[str, object, object, str]]:
    return [
        (one.name, one.kind, one.default, blocking(one.annotation))
        for one in inspect.signature(call).parameters.values()
    ]


@pytest.mark.parametrize(("original", "same"), [(client.Client, sync.Client), (job.Job, sync.Job)])
def test_the_blocking_class_has_the_same_calls(original: type, same: type) -> None:
    between = BETWEEN_THEM if original is client.Client else set()
    expected = {RENAMED.get(name, name) for name in methods(original) if name not in between}
    assert set(methods(same)) == expected


CALLS = [
    (original, same, name)
    for original, same in ((client.Client, sync.Client), (job.Job, sync.Job))
    for name in methods(original)
    if original is job.Job or name not in BETWEEN_THEM
]


@pytest.mark.parametrize(("original", "same", "name"), CALLS, ids=lambda value: getattr(value, "__name__", value))
def test_a_blocking_call_has_the_same_signature(original: type, same: type, name: str) -> None:
    call, blocks = methods(original)[name], methods(same)[RENAMED.get(name, name)]
    assert parameters(blocks) == parameters(call)
    returns, expected = (inspect.signature(each).return_annotation for each in (blocks, call))
    assert str(returns) == blocking(expected)
    assert not inspect.iscoroutinefunction(blocks)


@pytest.mark.parametrize(("original", "same", "name"), CALLS, ids=lambda value: getattr(value, "__name__", value))
def test_a_blocking_call_has_the_same_docstring(original: type, same: type, name: str) -> None:
    if name in RENAMED or name.startswith("__"):
        return
    assert methods(same)[name].__doc__ == methods(original)[name].__doc__
    assert methods(same)[name].__doc__


@pytest.mark.parametrize("kind", [client.Client, job.Job])
def test_classes_say_what_they_are(kind: type) -> None:
    assert getattr(sync, kind.__name__).__doc__


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import threadline", ("threadline.sync", "threadline.portal", "threadline.testing", "concurrent.futures")),
        ("from threadline import Client", ("threadline.sync", "threadline.portal", "threadline.testing")),
        ("import threadline.sync", ("langgraph", "langchain_core", "arq", "pydantic", "threadline_worker")),
        ("import threadline.testing", ("langgraph", "langchain_core", "arq", "pytest", "threadline_worker")),
    ],
)
def test_importing_loads_only_what_is_needed(statement: str, absent: tuple[str, ...]) -> None:
    check = f"import sys; {statement}; print(*(name for name in {absent!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
