"""Time travel: a thread's past is read, forked or changed by a worker; whoever asks waits for the one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from threadline.calls.backends import Backends
from threadline.calls.submit import Submission
from threadline.contract.codec import MAX_INPUT_BYTES, canonical, dumps
from threadline.contract.job import check_agent, check_id, check_thread_id, check_user_id, new_id, seconds
from threadline.contract.states import ENDED, Code, State
from threadline.errors import BackendUnavailable, InvalidJob, JobCancelled, JobFailed, ResultTimeout, UnknownAgent
from threadline.ledger.database import Row
from threadline.ledger.internal import Asked, InternalJobs
from threadline.log.feed import Subscription, subscribed
from threadline.redis_client import REDIS_ERRORS

__all__ = ["DEFAULT_SECONDS", "Travel"]

#: How long a call waits for its answer unless it says otherwise.
DEFAULT_SECONDS: Final = 60.0
_MOST_LISTED: Final = 1_000
_MOST_CHARACTERS: Final = 500
#: Ends of a job that had no more time than its caller: not started, or not done in time.
_LATE: Final = frozenset({Code.EXPIRED, Code.TIMEOUT})
#: Seconds between two looks into the ledger: they grow from the first to the last.
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 1.0


class Travel:
    """Every call raises NeedsDatabase without a ledger, and ResultTimeout if no worker has answered in time."""

    def __init__(self, backends: Backends, submission: Submission) -> None:
        self._backends = backends
        self._submission = submission

    async def state(self, thread_id: str, checkpoint_id: str | None, **who: Any) -> dict[str, Any]:
        """See `Client.state`."""
        arguments = {"checkpoint_id": _checkpoint(checkpoint_id)}
        return dict(await self._ask("state", thread_id, new_id(), arguments, **who))

    async def history(self, thread_id: str, limit: int, before: str | None, **who: Any) -> list[dict[str, Any]]:
        """See `Client.history`."""
        arguments = {"limit": max(1, min(limit, _MOST_LISTED)), "before": _checkpoint(before)}
        return list(await self._ask("history", thread_id, new_id(), arguments, **who))

    async def fork(self, thread_id: str, checkpoint_id: str | None, new_thread_id: str | None, **who: Any) -> str:
        """See `Client.fork`."""
        target = new_id() if new_thread_id is None else check_thread_id(new_thread_id)
        if target == thread_id:
            raise InvalidJob(f"thread {thread_id} cannot be forked onto itself: give the id of a new thread, or none")
        await self._ask("fork", thread_id, target, {"checkpoint_id": _checkpoint(checkpoint_id)}, **who)
        return target

    async def update_state(self, thread_id: str, values: dict[str, Any] | None, as_node: str | None, **who: Any) -> str:
        """See `Client.update_state`."""
        arguments = {"values": _values(values), "as_node": _node(as_node)}
        return str((await self._ask("update_state", thread_id, thread_id, arguments, **who))["checkpoint_id"])

    async def _ask(
        self,
        operation: str,
        thread_id: str,
        target: str,
        arguments: dict[str, Any],
        *,
        user_id: str | None,
        agent: str | None,
        timeout: float | timedelta,  # noqa: ASYNC109 - asyncio.timeout below
    ) -> Any:
        """The operation's result."""
        ledger = self._backends.need_ledger(f"{operation}()")
        limit = seconds("timeout", timeout) or DEFAULT_SECONDS
        jobs = InternalJobs(ledger)
        asked = Asked(
            operation=operation,
            thread_id=check_thread_id(thread_id),
            target=target,
            arguments=arguments,
            user_id=None if user_id is None else check_user_id(user_id),
            agent=None if agent is None else check_agent(agent),
            seconds=limit,
        )
        stored, on_agent = await jobs.ask(new_id(), asked, dispatching=self._backends.redis is not None)
        await self._submission.send(ledger, stored)
        answer: Row | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                answer = await self._answered(jobs, stored.job_id)
        if answer is None or answer["code"] in _LATE:
            answer = await self._given_up(jobs, stored.job_id, asked, on_agent)
        with suppress(BackendUnavailable):  # whoever prunes finds it
            await jobs.forget(stored.job_id)
        return _result(answer)

    async def _answered(self, jobs: InternalJobs, job_id: str) -> Row:
        """The ledger has the answer; the job's channel only says when to ask again."""
        async with self._listening(job_id) as heard:
            subscription = heard
            pause = _FIRST_PAUSE
            while True:
                with suppress(BackendUnavailable):  # Postgres may be back within the limit
                    if (row := await jobs.look(job_id))["state"] in ENDED:
                        return row
                pause = min(pause * 2, _LAST_PAUSE)
                try:
                    await (asyncio.sleep(pause) if subscription is None else subscription.next(pause))
                except REDIS_ERRORS:
                    subscription = None

    @asynccontextmanager
    async def _listening(self, job_id: str) -> AsyncIterator[Subscription | None]:
        """The job's channel; None without Redis, or while it is away."""
        async with AsyncExitStack() as stack:
            subscription = None
            if self._backends.redis is not None:
                channel = self._backends.keys.events(job_id)
                with suppress(*REDIS_ERRORS):
                    subscription = await stack.enter_async_context(subscribed(self._backends.redis, channel))
            yield subscription

    async def _given_up(self, jobs: InternalJobs, job_id: str, asked: Asked, agent: str) -> Row:
        """The answer if it came in the last moment; else the job is taken back. Raises ResultTimeout."""
        happened, why = "it may still be done", "Postgres does not answer"
        with suppress(BackendUnavailable):
            await jobs.cancel(job_id)
            row = await jobs.look(job_id)
            if row["state"] in {State.SUCCEEDED, State.FAILED} and row["code"] not in _LATE:
                return row
            if row["started"]:
                why = "a worker has begun it: give it more time"
            else:
                happened, why = "nothing was done", await jobs.why_unanswered(asked.operation, agent)
            await jobs.forget(job_id)
        raise ResultTimeout(
            f"{asked.operation} of thread {asked.thread_id} was not answered within {asked.seconds:g} s, {happened};"
            f" {why}"
        )


def _result(answer: Row) -> Any:
    message = answer["message"] or ""
    match answer["state"], answer["code"]:
        case State.SUCCEEDED, _:
            return answer["result"]
        case State.CANCELLED, code:  # by somebody who learnt its id from a ThreadBusy
            raise JobCancelled(code or "requested")
        case _, Code.INVALID_INPUT:
            raise InvalidJob(message)
        case _, Code.UNKNOWN_AGENT:
            raise UnknownAgent(message)
        case _, code:
            raise JobFailed(code or "error", message)


def _checkpoint(checkpoint_id: str | None) -> str | None:
    return None if checkpoint_id is None else check_id("checkpoint id", checkpoint_id)


def _values(values: dict[str, Any] | None) -> dict[str, Any] | None:
    if values is not None and not isinstance(values, dict):
        raise InvalidJob(f"values is a {type(values).__name__}: give a dict of the state's keys")
    try:
        size = len(canonical(values))
        dumps(values)  # what is stored: refuses keys that the standard library would make strings of
    except (InvalidJob, TypeError) as error:
        raise InvalidJob(f"values: {error}") from error
    if size > MAX_INPUT_BYTES:
        raise InvalidJob(f"values is {size:,} bytes as JSON; at most {MAX_INPUT_BYTES:,} (1 MiB) are allowed")
    return values


def _node(as_node: str | None) -> str | None:
    if as_node is not None and (not isinstance(as_node, str) or not 1 <= len(as_node) <= _MOST_CHARACTERS):
        raise InvalidJob(f"as_node={str(as_node)[:120]!r}: give the name of a node of the graph")
    canonical(as_node)  # a lone surrogate cannot be stored
    return as_node
