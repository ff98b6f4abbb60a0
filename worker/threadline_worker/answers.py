"""A person's answer is taken once: what a task has taken is known from its saved writes, also after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Interrupt

from threadline.ledger.custody import Claim, Custody

__all__ = ["Answers", "answers_of"]


@dataclass(frozen=True)
class Answers:
    """What a resume job brings, by interrupt id; `spent` are the questions whose tasks have taken an answer."""

    given: dict[str, Any]
    spent: frozenset[str] = frozenset()


async def answers_of(claim: Claim, ledger: Custody, saver: BaseCheckpointSaver[Any]) -> Answers | None:
    """The answers of a resume job, None for any other. Raises BackendUnavailable."""
    if claim.kind != "resume":
        return None
    params = {"job_id": claim.job_id, "thread_id": claim.thread_id}
    rows = await ledger.database.rows(ledger.queries["spent_answers"], params)
    asked = [saver.serde.loads_typed((row["type"], bytes(row["blob"]))) for row in rows]
    return Answers(claim.input or {}, frozenset(one.id for some in asked for one in _listed(some)))


def _listed(asked: Any) -> list[Interrupt]:
    found = asked if isinstance(asked, (list, tuple)) else [asked]
    return [one for one in found if isinstance(one, Interrupt)]
