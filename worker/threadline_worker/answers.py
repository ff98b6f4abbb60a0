"""A person's answer is taken once: what a task has taken is known from its saved writes, also after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Interrupt

from threadline.encryption.vault import Vault
from threadline.ledger.custody import Claim, Custody
from threadline.ledger.database import Row
from threadline_worker.encrypted_checkpoints import opened_write

__all__ = ["Answers", "answers_of"]


@dataclass(frozen=True)
class Answers:
    """What a resume job brings, by interrupt id; `spent` are the questions whose tasks have taken an answer."""

    given: dict[str, Any]
    spent: frozenset[str] = frozenset()


async def answers_of(claim: Claim, ledger: Custody, saver: BaseCheckpointSaver[Any]) -> Answers | None:
    """The answers of a resume job, None for any other. Raises BackendUnavailable, CannotDecrypt."""
    if claim.kind != "resume":
        return None
    params = {"job_id": claim.job_id, "thread_id": claim.thread_id}
    rows = await ledger.database.rows(ledger.queries["spent_answers"], params)
    opened = [_Spent(row, claim.thread_id, ledger.vault) for row in rows]
    asked = [saver.serde.loads_typed(one.written("")) for one in opened if one.taken]
    return Answers(claim.input or {}, frozenset(one.id for some in asked for one in _listed(some)))


class _Spent:
    """A row of spent_answers.sql."""

    def __init__(self, row: Row, thread_id: str, vault: Vault) -> None:
        self._row = row
        self._thread_id = thread_id
        self._vault = vault

    @property
    def taken(self) -> bool:
        """Whether the task notes other answers than before: sealed anew, the same ones are other bytes."""
        return self._row["before_blob"] is None or self.written("taken_") != self.written("before_", "taken_")

    def written(self, which: str, place: str | None = None) -> tuple[str, bytes]:
        """Type and bytes of one of the row's writes, which stands at the place of `place`. Raises CannotDecrypt."""
        row, at = self._row, which if place is None else place
        where = (self._thread_id, row["checkpoint_ns"], row["checkpoint_id"], row["task_id"])
        kind, blob = opened_write(
            self._vault, (*where, row[f"{at}idx"], row[f"{at}channel"]), row[f"{which}type"], row[f"{which}blob"]
        )
        return kind, bytes(blob)


def _listed(asked: Any) -> list[Interrupt]:
    found = asked if isinstance(asked, (list, tuple)) else [asked]
    return [one for one in found if isinstance(one, Interrupt)]
