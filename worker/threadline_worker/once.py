"""For authors of tools: a key that is the same when a step runs again (R3), and effects that are not repeated (F2).

A step that was under way when its worker died runs again elsewhere. `tool_key` tells the outside world that it is the
same call; `once` keeps what the call did in the ledger and gives it back. See docs/tools.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, Final, Literal, TypeVar, cast, overload
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.prebuilt.tool_node import ToolRuntime
from langgraph.runtime import Runtime
from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow

from threadline.contract.codec import dumps, loads
from threadline_worker.effects import Begun, Effects, LedgerEffects, MemoryEffects, effects_of_this_run

__all__ = [
    "MAX_RESULT_BYTES",
    "EffectInDoubt",
    "EffectNotDone",
    "InDoubt",
    "NotInARun",
    "OnceError",
    "once",
    "once_in_memory",
    "once_in_transaction",
    "once_in_transaction_sync",
    "once_sync",
    "tool_key",
]

T = TypeVar("T")

#: What a repeated step finds where an earlier one began and nobody knows whether it was done: "run" does it again,
#: "raise" raises EffectInDoubt.
InDoubt = Literal["run", "raise"]

#: As JSON. Keep ids and figures; documents belong into the store or into files.
MAX_RESULT_BYTES: Final = 1_048_576
_MAX_KEY: Final = 500
#: A cancelled step has 10 s to stop.
_LAST_SECONDS: Final = 5.0
_KEYS: Final = UUID("3f0c1c3e-5f43-5d0e-9b39-7a1d3f1f6c11")


class OnceError(Exception):
    """A tool asked for something that cannot be kept: a bad key, or a result that is no JSON or too large."""


class NotInARun(OnceError):  # noqa: N818 - a state, as the others
    """There is no job around this call: tools are run by a worker, or in a test inside `once_in_memory()`."""


class EffectInDoubt(OnceError):  # noqa: N818 - the field's term
    """An earlier try began this effect and did not live to say whether it was done: look, then decide.

    `key`, `begun_at` (the database's time) and `worker_id` say which, when and by whom.
    """

    def __init__(self, key: str, begun: Begun) -> None:
        super().__init__(
            f"effect {key} was begun at {begun.begun_at:%Y-%m-%d %H:%M:%S%z} by worker {begun.worker_id}, and nobody"
            " knows whether it was done: look, and call once() again with in_doubt='run'"
        )
        self.key = key
        self.begun_at = begun.begun_at
        self.worker_id = begun.worker_id


class EffectNotDone(OnceError):  # noqa: N818 - says what did not happen
    """Raised by a tool's own function where it knows that nothing has happened: the effect may be tried again."""


def tool_key(runtime: ToolRuntime[Any, Any] | Runtime[Any] | RunnableConfig, *parts: str) -> str:
    """A UUID for this call of a tool, the same whenever the step runs again, on whatever worker, and no other call's.

    It is made of the thread, LangGraph's task and the tool call's id, so it holds in subagents and for parallel calls.
    `parts` tell several effects of one call apart. In a tool take `runtime: ToolRuntime`; a node's `Runtime` or a
    config stands for the whole task, which one ToolNode may share among several calls.
    Raises OnceError outside a task of a graph with checkpoints.
    """
    call: list[str] = []
    if isinstance(runtime, ToolRuntime):
        if not runtime.tool_call_id:
            raise OnceError("this tool call has no id to tell it from others: call the tool through a ToolNode")
        call = [runtime.tool_call_id]
    thread_id, task_id = _task(runtime)
    if not thread_id or not task_id:
        raise OnceError("this call belongs to no task of a thread with checkpoints: give the graph a checkpointer")
    return str(uuid5(_KEYS, dumps([thread_id, task_id, *call, *parts]).decode()))


@overload
async def once(key: str, fn: Callable[[], Awaitable[T]], *, in_doubt: InDoubt) -> T: ...
@overload
async def once(key: str, fn: Callable[[], T], *, in_doubt: InDoubt) -> T: ...
async def once(key: str, fn: Callable[[], Any], *, in_doubt: InDoubt) -> Any:
    """Call `fn` and keep its result; where that was done before, return what was kept. For async tools.

    A process that dies between doing and keeping leaves a doubt, which no ledger can decide. `in_doubt="run"`: `fn` is
    called again then; use it with a key that the other side knows (`tool_key`), or where twice does no harm.
    `in_doubt="raise"`: `fn` is never called again before somebody has looked; EffectInDoubt is raised. With it every
    exception of `fn` leaves the doubt, too (a timeout may come after the deed), except EffectNotDone.

    `key` is 1-500 characters, per thread. The result is JSON of at most 1 MiB, and comes back as JSON does (a tuple as
    a list), the first time as well. Raises NotInARun, OnceError, and LeaseLost where the job is somebody else's now.
    """
    effects = _effects(key)
    begun = await effects.begin(key, mark=in_doubt == "raise")
    if begun.outcome == "new":
        try:
            result = fn()
            result = await result if isawaitable(result) else result
        except EffectNotDone:
            await effects.forget(key)
            raise
        return loads(await _kept(effects, key, _json(result)))
    return _known(key, begun)


def once_sync(key: str, fn: Callable[[], T], *, in_doubt: InDoubt) -> T:
    """`once` for sync tools, which LangChain runs in threads. RuntimeError in async code, which it would block."""
    effects = _effects(key)
    begun = effects.wait(effects.begin(key, mark=in_doubt == "raise"))
    if begun.outcome == "new":
        try:
            result = fn()
        except EffectNotDone:
            effects.wait(effects.forget(key))
            raise
        return cast("T", loads(effects.wait(effects.finish(key, _json(result)))))
    return cast("T", _known(key, begun))


async def once_in_transaction(key: str, fn: Callable[[AsyncConnection[DictRow]], Awaitable[T]]) -> T:
    """Exactly once, for effects in the Postgres that holds the ledger: `fn` writes on the connection that it is given.

    What it writes commits together with the record of its result, and only while the job is still ours; so there is
    never a doubt. `fn` must not commit, and has the worker's transaction timeout (0.8 of the lease): TimeoutError.
    """

    async def act(connection: AsyncConnection[DictRow]) -> str:
        return _json(await fn(connection))

    return cast("T", loads(await _ledger(key).within(key, act)))


def once_in_transaction_sync(key: str, fn: Callable[[Connection[DictRow]], T]) -> T:
    """`once_in_transaction` for sync tools."""
    return cast("T", loads(_ledger(key).within_blocking(key, lambda connection: _json(fn(connection)))))


@contextmanager
def once_in_memory() -> Iterator[dict[str, str | None]]:
    """For tests of tools: effects are kept in the dict that it gives (key → JSON of the result), by no ledger.

    A key with None in it is in doubt. What needs a transaction needs Postgres, and raises NotInARun here, too.
    """
    effects = MemoryEffects()
    token = effects_of_this_run.set(effects)
    try:
        yield effects.kept
    finally:
        effects_of_this_run.reset(token)


def _task(runtime: ToolRuntime[Any, Any] | Runtime[Any] | RunnableConfig) -> tuple[str | None, str | None]:
    """The thread and LangGraph's task, whose id is a hash of its checkpoint, namespace, step, node and number."""
    if isinstance(runtime, ToolRuntime | Runtime):
        info = runtime.execution_info
        return (None, None) if info is None else (info.thread_id, info.task_id)
    configurable = runtime.get("configurable", {})
    # A namespace is made of segments, each a node and its task: a:1|b:2.
    return configurable.get("thread_id"), str(configurable.get("checkpoint_ns", "")).rpartition(":")[2]


def _effects(key: str) -> Effects:
    if not 0 < len(key) <= _MAX_KEY or "\0" in key:
        raise OnceError(f"the key of an effect has 1 to {_MAX_KEY} characters without NUL: use tool_key(runtime)")
    effects = effects_of_this_run.get()
    if effects is None:
        raise NotInARun(
            "once() keeps effects in the ledger of a job, and no job runs here: let a worker run the tool, or wrap the"
            " call in `with once_in_memory():` in a test"
        )
    return effects


def _ledger(key: str) -> LedgerEffects:
    effects = _effects(key)
    if not isinstance(effects, LedgerEffects):
        raise NotInARun("once_in_transaction() needs the ledger's Postgres: let a worker run the tool")
    return effects


async def _kept(effects: Effects, key: str, result: str) -> str:
    """The deed is done: a run that is stopped at this very moment shall not leave it in doubt."""
    keeping = asyncio.ensure_future(effects.finish(key, result))
    try:
        return await asyncio.shield(keeping)
    except asyncio.CancelledError:
        await asyncio.wait({keeping}, timeout=_LAST_SECONDS)
        if not keeping.cancel():
            keeping.exception()  # looked at, or asyncio would complain of it later
        raise


def _known(key: str, begun: Begun) -> Any:
    if begun.outcome == "in_doubt":
        raise EffectInDoubt(key, begun)
    return loads(begun.result or "null")


def _json(result: Any) -> str:
    # The strict encoder: nothing becomes something else on the way without a word (a moment a string, NaN a null).
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise OnceError(f"the effect's result is not expressible as JSON ({error}): return an id or a dict") from error
    if size > MAX_RESULT_BYTES:
        raise OnceError(f"the effect's result has {size} bytes, above the limit of 1 MiB: return an id instead")
    return text
