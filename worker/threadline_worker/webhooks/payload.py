"""What a receiver gets, from the outbox's row: sealed there field by field, plain in the request."""

from __future__ import annotations

from threadline.contract.codec import dumps, loads
from threadline.encryption.rows import opened_job
from threadline.encryption.vault import Vault
from threadline_worker.webhooks.delivery import Delivery

__all__ = ["opened_payload"]


def opened_payload(vault: Vault, delivery: Delivery) -> str:
    """The row's payload; byte by byte as it stands if nothing is sealed. Raises CannotDecrypt."""
    if not vault.on and '"sealed"' not in delivery.payload:
        return delivery.payload
    payload = loads(delivery.payload)
    opened = opened_job(vault, payload["data"], delivery.job_id)
    # Parsed and written in one order always: every try sends the same bytes.
    return dumps({**payload, "data": opened}).decode() if opened != payload["data"] else delivery.payload
