"""What the ledger's rows of jobs say, sealed on the way in and opened on the way out, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from threadline.contract.codec import dumps
from threadline.contract.states import Code
from threadline.encryption import places
from threadline.encryption.vault import Vault

__all__ = ["opened_job", "opened_options", "sealed_json", "sealed_message", "sealed_options"]

#: Of the options these stay as they are: SQL reads them, or they are names and numbers.
_PLAIN_OPTIONS: Final = frozenset(
    {
        "stream_modes",
        "interrupt_before",
        "interrupt_after",
        "checkpoint_id",
        "webhook_url",
        "wait_expires",
        "operation",
        "thread_id",
        "traceparent",
        "queue",
    }
)
#: Columns of JSON, and what the ledger's own statements write there, which says nothing.
_JSON: Final[Mapping[str, Any]] = {"input": None, "metadata": {}, "result": None, "interrupts": []}
#: Ends whose message the ledger's own statements write, without a word of anybody's data.
_SAID_BY_THE_LEDGER: Final = frozenset({Code.EXPIRED, Code.TIMEOUT, Code.POISONED})
#: A webhook's payload holds 8,192 characters of a message: sealed it must not be longer, or it could not be opened.
_MOST_MESSAGE_BYTES: Final = 5_900


def sealed_json(vault: Vault, column: str, value: Any, job_id: str) -> str:
    """A column's JSON text."""
    return dumps(vault.seal(value, places.job(column, job_id))).decode()


def sealed_message(vault: Vault, message: str | None, job_id: str) -> str | None:
    """An error's message; with keys at most 5,900 bytes of it."""
    if not vault.on or message is None:
        return message
    clipped = message.encode()[:_MOST_MESSAGE_BYTES].decode(errors="ignore")
    return vault.seal_words(clipped, places.job("message", job_id))


def sealed_options(vault: Vault, options: Mapping[str, Any], thread_id: str) -> dict[str, Any]:
    """Options whose values may be a user's words go into one sealed field."""
    plain = {name: value for name, value in options.items() if name in _PLAIN_OPTIONS}
    rest = {name: value for name, value in options.items() if name not in _PLAIN_OPTIONS}
    return {**plain, **vault.seal(rest, places.options(thread_id))} if vault.on and rest else dict(options)


def opened_options(vault: Vault, options: Mapping[str, Any], thread_id: str) -> dict[str, Any]:
    """The options as they were given. Raises CannotDecrypt."""
    plain = {name: value for name, value in options.items() if name != "sealed"}
    if "sealed" in options:
        return {**plain, **vault.open({"sealed": options["sealed"]}, places.options(thread_id))}
    if plain.keys() - _PLAIN_OPTIONS:
        vault.refuse_plain(places.options(thread_id))
    return plain


def opened_job(vault: Vault, row: Mapping[str, Any], job_id: str | None = None) -> dict[str, Any]:
    """A row of jobs, with those of its columns that it has. Raises CannotDecrypt."""
    named = str(row["job_id"]) if job_id is None else job_id
    opened = dict(row)
    for column, empty in _JSON.items():
        if column in row and row[column] != empty:
            opened[column] = vault.open(row[column], places.job(column, named))
    if row.get("message") is not None:
        plain = row.get("code") in _SAID_BY_THE_LEDGER
        opened["message"] = vault.open_words(row["message"], places.job("message", named), or_plain=plain)
    if row.get("webhook"):
        opened["webhook"] = _opened_webhook(vault, row["webhook"], named)
    return opened


def _opened_webhook(vault: Vault, webhook: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    if webhook.get("answer") is None:
        return dict(webhook)
    place = places.webhook_answer(job_id, webhook["epoch"])
    return {**webhook, "answer": vault.open_words(webhook["answer"], place)}
