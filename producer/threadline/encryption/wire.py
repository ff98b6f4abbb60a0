"""What goes through Redis sealed: the data of events, and what the messages say that carry jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from threadline.contract.events import Event, encode_event
from threadline.encryption import places
from threadline.encryption.vault import Vault

__all__ = ["encoded_event", "opened_event", "opened_message", "sealed_message_job"]

#: Fields of a job that stay as they are: ids, names, moments and numbers, all else is one sealed field.
_PLAIN: Final = frozenset(
    {
        "v",
        "job_id",
        "agent",
        "thread_id",
        "user_id",
        "on_busy",
        "idempotency_key",
        "run_at",
        "expires",
        "timeout",
        "stream_modes",
        "interrupt_before",
        "interrupt_after",
        "checkpoint_id",
        "webhook_url",
        "wait_expires",
        "queue",
        "routed",
        "sig",
    }
)


def encoded_event(vault: Vault, event: Event) -> bytes:
    """The event's JSON for Redis; with keys its data is `{"sealed": "<key id>:<base64>"}`."""
    if not vault.on:
        return encode_event(event)
    place = places.event(event.job_id, event.id or "", event.type)
    return encode_event(event, seal=lambda data: vault.seal_text(data, place))


def opened_event(vault: Vault, event: Event) -> Event:
    """The event with its data as it was. Raises CannotDecrypt."""
    if vault.on or (isinstance(event.data, dict) and "sealed" in event.data):
        place = places.event(event.job_id, event.id or "", event.type)
        if event.data is None:
            vault.refuse_plain(place)
        return msgspec.structs.replace(event, data=vault.open(event.data, place))
    return event


def sealed_message_job(vault: Vault, job: Mapping[str, Any]) -> dict[str, Any]:
    """A whole job as a message carries it (before it is signed)."""
    if not vault.on:
        return dict(job)
    said = {name: value for name, value in job.items() if name not in _PLAIN}
    plain = {name: value for name, value in job.items() if name in _PLAIN}
    return {**plain, **vault.seal(said, places.message(str(job["job_id"])))}


def opened_message(vault: Vault, job: Mapping[str, Any]) -> dict[str, Any]:
    """The job that a message carries. Raises CannotDecrypt."""
    place = places.message(str(job["job_id"]))
    plain = {name: value for name, value in job.items() if name != "sealed"}
    if "sealed" in job:
        opened = vault.open({"sealed": job["sealed"]}, place)
        return {**plain, **(opened if isinstance(opened, dict) else {})}
    if plain.keys() - _PLAIN:
        vault.refuse_plain(place)
    return plain
