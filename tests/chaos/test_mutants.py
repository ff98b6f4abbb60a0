"""The suite can fail: each way to break the promise is noticed by the test that is named for it.

Some of them here; all of them with ALL_MUTANTS=1, or by `python tests/chaos/test_mutants.py [words of a name]`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # this folder is no package
from mutants import MUTANTS, SHORT
from mutation import Mutant, applied, mutated

_HOUSE = Path(__file__).parent.parent.parent
_ALL = bool(os.environ.get("ALL_MUTANTS"))
_SOME_FAILED = 1


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if _ALL or m.name in SHORT], ids=lambda mutant: mutant.name)
def test_a_mutant_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    code, said = judge(mutant, tmp_path)
    assert code == _SOME_FAILED, f"{mutant.name} lives: {mutant.test} ended with {code}\n{said[-2000:]}"


def test_the_short_list_names_mutants() -> None:
    assert set(SHORT) <= {mutant.name for mutant in MUTANTS}


def test_each_rule_that_the_guarantees_name_has_a_mutant() -> None:
    page = (_HOUSE / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rules = set(re.findall(r"^\| ([LOFVRP]\d) \|", page, re.MULTILINE))
    assert rules - {mutant.name.partition(":")[0] for mutant in MUTANTS} == set()


def test_all_mutants_still_apply_and_name_a_test() -> None:
    """The others run with ALL_MUTANTS=1 only; that the code has moved on is noticed here."""
    for mutant in MUTANTS:
        mutated(mutant)
        file, _, test = mutant.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (_HOUSE / file).read_text(), mutant
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def judge(mutant: Mutant, folder: Path) -> tuple[int, str]:
    """pytest's exit code (1: tests failed, as they should) and what it said."""
    path = os.pathsep.join(map(str, applied(mutant, folder)))
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "THREADLINE_EMBEDDED") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test],
        cwd=_HOUSE,
        env={**keep, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def main() -> None:
    """All of them, with a line each."""
    lives = 0
    for mutant in MUTANTS:
        if any(word not in mutant.name for word in sys.argv[1:]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            code, said = judge(mutant, Path(folder))
        lives += code != _SOME_FAILED
        errors = [line.removeprefix("E").strip() for line in said.splitlines() if line.startswith("E  ")]
        why = next((line for line in errors if line.startswith("(")), (errors or [""])[0])
        verdict = "noticed" if code == _SOME_FAILED else f"LIVES ({code})"
        print(f"{verdict:<10} {mutant.name:<64} {why[:140]}", flush=True)  # noqa: T201 - a program
    sys.exit(bool(lives))


if __name__ == "__main__":
    main()
