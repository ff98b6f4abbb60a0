"""Ways to break the promise, each a small change of the package, and the tests that must notice.

Each rule of docs/guarantees.md has one or more; what they look like and how they are applied is in `mutation`.
"""

from __future__ import annotations

from typing import Final

from mutants_ledger import LEDGER
from mutants_runs import RUNS

__all__ = ["MUTANTS", "SHORT"]

MUTANTS: Final = (*LEDGER, *RUNS)

#: What runs within `make test`: the quick ones that hold the most.
SHORT: Final = (
    "F1: the fence is gone",
    "F1: the fence stays open after the job has left running",
    "L1: finish compares no epoch",
    "O4: a rollback only deletes the newer checkpoints",
    "R2: the decision looks at state.next",
    "R2: a pick-up starts from the input again",
)
