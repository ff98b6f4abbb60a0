"""One report on its way: its id never changes, and every try is signed anew with the moment of that try."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple

from standardwebhooks import Webhook

__all__ = ["Delivery", "signed_headers"]


class Delivery(NamedTuple):
    """A claimed row of the outbox; `claims` is the fence of its outcome. `payload` is sent byte by byte."""

    job_id: str
    epoch: int
    claims: int
    attempts: int
    url: str
    host: str
    payload: str
    thread_id: str = ""
    agent: str = ""
    traceparent: str | None = None

    @property
    def message_id(self) -> str:
        """What receivers tell repetitions by: the same for every try of this end."""
        # A dot separates the parts of what is signed, so that none may stand inside one. Job ids have no tilde.
        return f"{self.job_id}:{self.epoch}".replace(".", "~")


def signed_headers(delivery: Delivery, secrets: Sequence[str], moment: datetime | None = None) -> dict[str, str]:
    """The headers of Standard Webhooks; one signature for each secret, so that receivers may change theirs in peace."""
    now = moment or datetime.now(UTC)
    signatures = [Webhook(secret).sign(delivery.message_id, now, delivery.payload) for secret in secrets]
    return {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"threadline/{version('threadline')}",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
