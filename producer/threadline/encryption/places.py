"""Where sealed data belongs: each place has one name, and what was sealed for one can be read at no other.

A place is the table and column (or what Redis holds) and the ids of the row. docs/encryption.md lists them.
"""

from __future__ import annotations

__all__ = [
    "Place",
    "blob",
    "checkpoint",
    "dead_letter",
    "effect",
    "event",
    "item",
    "job",
    "message",
    "options",
    "webhook_answer",
    "write",
]

Place = tuple[str, ...]


def job(column: str, job_id: str) -> Place:
    """input, metadata, result, interrupts or message of a job."""
    return ("jobs", column, job_id)


def options(thread_id: str) -> Place:
    """A job's options. Bound to the thread: an answer to a question inherits them from the job that asked."""
    return ("jobs", "options", thread_id)


def event(job_id: str, event_id: str, kind: str) -> Place:
    """`data` of an event in Redis."""
    return ("events", "data", job_id, event_id, kind)


def message(job_id: str) -> Place:
    """What a job that a message carries says."""
    return ("messages", "job", job_id)


def checkpoint(thread_id: str, namespace: str, checkpoint_id: str, digest: str) -> Place:
    """A checkpoint's metadata; `digest` is the checkpoint's own, which is stored beside it."""
    return ("checkpoints", "metadata", thread_id, namespace, checkpoint_id, digest)


def blob(thread_id: str, namespace: str, channel: str, version: str, kind: str) -> Place:
    """One version of one channel's value; `kind` is the serialiser's word for its form."""
    return ("checkpoint_blobs", "blob", thread_id, namespace, channel, version, kind)


def write(  # noqa: PLR0917 - a row's key, in its order
    thread_id: str, namespace: str, checkpoint_id: str, task_id: str, idx: int, channel: str, kind: str
) -> Place:
    """A pending write of a task, also where a rollback keeps it (job_base_writes)."""
    return ("checkpoint_writes", "blob", thread_id, namespace, checkpoint_id, task_id, str(idx), channel, kind)


def item(prefix: str, key: str) -> Place:
    """A value of the store; `prefix` is its namespace as the table has it, the parts joined by dots."""
    return ("store", "value", prefix, key)


def effect(thread_id: str, key: str) -> Place:
    """What a tool did (table effects)."""
    return ("effects", "result", thread_id, key)


def webhook_answer(job_id: str, epoch: int) -> Place:
    """What a receiver answered."""
    return ("webhooks", "answer", job_id, str(epoch))


def dead_letter(column: str, message_id: str) -> Place:
    """A message that can never become a job, or why."""
    return ("dead_letters", column, message_id)
