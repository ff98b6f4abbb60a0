"""The ledger's half of a delivery: a claim is a lease, and only the newest claim's outcome is written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from threadline.encryption import places
from threadline.encryption.vault import PLAIN, Vault
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline_worker.webhooks.delivery import Delivery
from threadline_worker.webhooks.payload import opened_payload

__all__ = ["LEASE_SECONDS", "Outbox"]

#: How long a claimed row is left alone: longer than a try and the note of its outcome take. A worker that dies in
#: mid-delivery delays that one report by so much.
LEASE_SECONDS = 60.0


class Outbox:
    """Asks the ledger; one call at a time, so that reports never take the connections that runs need.

    `per_host` bounds what one host has in flight from this worker.
    """

    def __init__(self, database: Database, queries: Queries, *, per_host: int = 4, vault: Vault = PLAIN) -> None:
        self._database = database
        self._queries = queries
        self._per_host = per_host
        self._vault = vault
        self._one = asyncio.Lock()

    async def claim(self, limit: int, flying: Sequence[str]) -> list[Delivery]:
        """Up to `limit` due deliveries; `flying` are the hosts of those in flight here. Raises BackendUnavailable."""
        params = {
            "limit": limit,
            "flying": list(flying),
            "busy": self.full(flying),
            "per_host": self._per_host,
            "lease": LEASE_SECONDS,
        }
        async with self._one:
            rows = await self._database.rows(self._queries["webhook_claim"], params)
        return [Delivery(**row) for row in rows]

    def payload(self, delivery: Delivery) -> str:
        """What the receiver gets: the same bytes at every try. Raises CannotDecrypt."""
        return opened_payload(self._vault, delivery)

    def full(self, flying: Sequence[str]) -> list[str]:
        """The hosts that take no more now."""
        return [host for host, count in Counter(flying).items() if count >= self._per_host]

    async def record(
        self,
        delivery: Delivery,
        state: str,
        *,
        delay: float = 0.0,
        status: int | None = None,
        answer: str | None = None,
    ) -> bool:
        """Note a try's outcome: delivered, failed, or pending again in `delay` seconds. False: another claim counts."""
        kept = self._vault.seal_words(answer or None, places.webhook_answer(delivery.job_id, delivery.epoch))
        params = {**_named(delivery), "state": state, "delay": delay, "status": status, "answer": kept}
        async with self._one:
            return await self._database.row(self._queries["webhook_record"], params) is not None

    async def give_back(self, delivery: Delivery) -> None:
        """A try was cut off: it is due again at once, and counts as none."""
        async with self._one:
            await self._database.rows(self._queries["webhook_give_back"], _named(delivery))

    async def hold(self) -> int:
        """Show what is due as held; how many were not yet."""
        async with self._one:
            return len(await self._database.rows(self._queries["webhook_hold"]))

    async def due(self) -> bool:
        """Whether anything is due now."""
        async with self._one:
            row = await self._database.row(self._queries["webhook_due"])
        return row is not None and bool(row["due"])


def _named(delivery: Delivery) -> dict[str, str | int]:
    return {"job_id": delivery.job_id, "epoch": delivery.epoch, "claims": delivery.claims}
