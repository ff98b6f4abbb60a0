"""One operation from claim to outcome: it ends, is stopped or runs out of time, and a lost lease writes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from threadline.contract.states import Code
from threadline.errors import CannotDecrypt, InvalidJob
from threadline_worker.agents.registry import Agent
from threadline_worker.checkpoints import CheckpointsAway, LeaseLost
from threadline_worker.exhaustion import end_if_exhausted
from threadline_worker.graph_change import GraphChangedError
from threadline_worker.internal.compact import compact
from threadline_worker.internal.fork import fork
from threadline_worker.internal.history import history
from threadline_worker.internal.scope import Scope, scope_of
from threadline_worker.internal.state import state
from threadline_worker.internal.update_state import update_state
from threadline_worker.outcome import Failed, Lost, Outcome, Released, Succeeded, classify, unreadable
from threadline_worker.refusals import Refusals

if TYPE_CHECKING:
    from threadline_worker.execution import Services
    from threadline_worker.runs import Run

__all__ = ["OPERATIONS", "operate"]

log = structlog.get_logger(__name__)

#: What workers of this release know by its name; queries/register.sql says so to the ledger. Each gives its result.
OPERATIONS: Final[Mapping[str, Callable[[Scope, Mapping[str, Any]], Awaitable[Any]]]] = {
    "compact": compact,
    "fork": fork,
    "history": history,
    "state": state,
    "update_state": update_state,
}
#: How long a cancelled operation may take to stop before it is left behind; its writes are fenced.
_STOP_SECONDS: Final = 10.0


async def operate(services: Services, run: Run, agent: Agent) -> Outcome:
    """The outcome of an internal job. Raises BackendUnavailable while the ledger cannot say whose the thread is."""
    try:
        scope = await scope_of(services, run.claim, agent)
    except InvalidJob as error:
        return Failed(Code.INVALID_INPUT, str(error))
    working = asyncio.create_task(
        _work(scope, services.refusals), name=f"{run.claim.options['operation']} {run.job_id}"
    )
    stopped = asyncio.create_task(run.stopped.wait())
    limit = run.claim.timeout_seconds or services.settings.job_timeout
    left = limit - run.claim.running_seconds - (time.monotonic() - run.began)
    try:
        await asyncio.wait({working, stopped}, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
        in_time = working.done()
        if not in_time:
            working.cancel()
            await asyncio.wait({working}, timeout=_STOP_SECONDS)
        if working.done() and not working.cancelled():
            return working.result()
        if stopped.done():
            return run.stopping or Released()
        if in_time:  # some branch or reducer raised CancelledError
            return Failed(Code.ERROR, "the graph cancelled itself (CancelledError)")
        return Failed(Code.TIMEOUT, f"it took longer than {limit:g} seconds")
    finally:
        stopped.cancel()
        working.cancel()


async def _work(scope: Scope, refusals: Refusals) -> Outcome:
    claim = scope.claim
    try:
        return Succeeded(await OPERATIONS[claim.options["operation"]](scope, claim.input))
    except LeaseLost:
        return Lost()
    except CheckpointsAway as error:
        return refusals.given_back(claim.job_id, error)
    except InvalidJob as error:
        known = isinstance(error, GraphChangedError)
        return Failed(Code.GRAPH_CHANGED if known else Code.INVALID_INPUT, str(error))
    except CannotDecrypt as error:
        return unreadable(error)
    except Exception as error:  # the boundary of the graph, whose reducers and branches are anyone's code
        end_if_exhausted(error)
        outcome = classify(error)
        log.warning("job.failed", code=outcome.code, exc_info=True)
        return outcome
