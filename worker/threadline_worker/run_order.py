"""What a claim's graph is made for: the access, the producer's configurable and context, and a store with the fence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from threadline.ledger.custody import Claim
from threadline_worker.agents.order import Access, Order, configurable_of, given_in
from threadline_worker.checkpoints import Fence
from threadline_worker.memory_store import FencedStore

if TYPE_CHECKING:
    from threadline_worker.execution import Services

__all__ = ["order_of"]

_ACCESS: Final[dict[str, Access]] = {"update_state": "threads.update"}


@contextmanager
def order_of(services: Services, claim: Claim) -> Iterator[Order]:
    """The order of one claim; a store that a factory has asked for ends with it."""
    stores: list[FencedStore] = []

    def store() -> FencedStore:
        fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)
        stores.append(FencedStore(services.checkpoints, fence, services.ledger.queries, services.store))
        return stores[-1]

    internal = claim.kind == "internal"
    options = claim.options
    try:
        yield Order(
            access=_ACCESS.get(options["operation"], "threads.read") if internal else "threads.create_run",
            configurable=configurable_of(
                given_in(options, "configurable"),
                thread_id=str(options["thread_id"]) if internal else claim.thread_id,
                user_id=claim.user_id,
                job_id=claim.job_id,
            ),
            context=given_in(options, "context"),
            store=store,
        )
    finally:
        for made in stores:
            made.stop()
