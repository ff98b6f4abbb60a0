"""docs/guarantees.md leaves no rule out and names no test that does not exist."""

from __future__ import annotations

import ast
import re

from support.markdown import ROOT

_GUARANTEES = "docs/guarantees.md"
_TEXT = (ROOT / _GUARANTEES).read_text(encoding="utf-8")
_COUNTS = {"L": 9, "O": 4, "F": 5, "V": 5, "R": 3, "P": 4}


def test_every_rule_of_the_design_is_there() -> None:
    rules = {f"{letter}{number}" for letter, count in _COUNTS.items() for number in range(1, count + 1)}
    told = set(re.findall(r"\b[LOFVRP]\d\b", re.sub(r"`[^`]*`", "", _TEXT)))
    assert told == rules


def test_no_rule_is_without_a_test() -> None:
    rows = dict(re.findall(r"^\| ([LOFVRP]\d) \| .+ \|([^|]*)\|$", _TEXT, re.MULTILINE))
    assert len(rows) == sum(_COUNTS.values())
    assert [rule for rule, tests in rows.items() if "`tests/" not in tests] == []


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _TEXT)
    assert len(named) > 10
    for path, name in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, f"{path}::{name}"
