"""A mutant is a private copy of the package with one change; one that no longer applies is an error, never a pass."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Mutant", "applied", "mutated"]

_HOUSE: Final = Path(__file__).parent.parent.parent


class Mutant(NamedTuple):
    """`old` stands in the file exactly once. `test` is what must fail: pytest's node id."""

    name: str
    file: str
    old: str
    new: str
    test: str


def mutated(mutant: Mutant) -> str:
    """The file with the change. Raises AssertionError if the file has changed so that the mutant no longer applies."""
    text = (_HOUSE / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise AssertionError(f"{mutant.name}: {mutant.file} has changed; write the mutant anew:\n{mutant.old}")
    return text.replace(mutant.old, mutant.new)


def applied(mutant: Mutant, folder: Path) -> list[Path]:
    """A private copy of the package with the change; the folders to put first on PYTHONPATH."""
    for part in ("producer", "worker"):
        shutil.copytree(_HOUSE / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / mutant.file).write_text(mutated(mutant))
    return [folder / "producer", folder / "worker"]
