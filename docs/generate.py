"""The tables in the documents say what the code says: `python docs/generate.py` rewrites them, `--check` only looks.

A generated part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. In docs/guarantees.md the last cell of a
rule's row is generated: the tests that bear the rule's name. Exit code 1 if `--check` finds a difference.
"""
# ruff: noqa: INP001, T201 - a script of its own that talks on stdout, not a module of the package

from __future__ import annotations

import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from threadline import errors
from threadline.environment import VARIABLES
from threadline.metrics import jobs_enqueued
from threadline.refusals import POSTGRES, REDIS, Refusal
from threadline_worker.telemetry.log_events import LOG_EVENTS
from threadline_worker.telemetry.metrics import Metrics, QueueGauges

ROOT: Final = Path(__file__).resolve().parent.parent
GUARANTEES: Final = "docs/guarantees.md"
#: The one refusal that no server that answers differently later mends: a mistake in the settings.
_CLUSTER: Final = "is a Redis Cluster"
_TEST: Final = re.compile(r"^ *(?:async )?def (test_((?:[LOFVRP]\d_)+)\w+)", re.MULTILINE)
_RULE_ROW: Final = re.compile(r"^\| ([LOFVRP]\d) \| (.+) \|[^|]*\|$", re.MULTILINE)


def configuration() -> str:
    """Every environment variable, as threadline.environment has it."""
    rows = [(f"`{variable.name}`", variable.meaning, variable.default) for variable in VARIABLES]
    return _table(("variable", "meaning", "default"), rows)


def error_tree() -> str:
    """The tree in the docstring of threadline.errors."""
    _, _, tree = (inspect.getdoc(errors) or "").partition("\n\n")
    return f"```text\n{tree.strip()}\n```"


def log_events() -> str:
    """Every name that a log line may carry."""
    return _table(("event", "meaning"), [(f"`{name}`", meaning) for name, meaning in sorted(LOG_EVENTS.items())])


def refusals(known: Sequence[Refusal]) -> str:
    """What a server says, what it means and what to do, as threadline.refusals has it."""
    rows = [
        (
            "<br>".join(f"`{words}`" for words in one.words),
            one.means,
            one.do,
            "waits up to 30 s" if one.passing else f"exit {2 if _CLUSTER in one.words else 4} at once",
        )
        for one in known
    ]
    return _table(("the message has", "it means", "do", "a worker at its start"), rows)


def metrics() -> str:
    """Every metric of a worker, from the registry that it serves, and a producer's own."""
    return _table(("metric", "type", "labels", "meaning"), sorted(_metric_rows()))


def _metric_rows() -> Iterator[tuple[str, str, str, str]]:
    made = Metrics(CollectorRegistry())
    collectors: list[Any] = [*(value for value in vars(made).values() if hasattr(value, "describe")), QueueGauges(dict)]
    collectors.append(jobs_enqueued(made.registry).counter)
    for collector in collectors:
        for family in collector.describe():
            # A metric names its labels nowhere in public before it has a sample.
            labels: tuple[str, ...] = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            name = family.name + ("_total" if family.type == "counter" else "")
            yield f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels) or "–", family.documentation


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


#: Which document holds which parts.
PARTS: Final = {
    "README.md": {"configuration": configuration, "errors": error_tree, "metrics": metrics},
    "docs/operations.md": {"log-events": log_events},
    "docs/troubleshooting.md": {"postgres": partial(refusals, POSTGRES), "redis": partial(refusals, REDIS)},
    GUARANTEES: {},
}


def tests_of_rules() -> Mapping[str, list[str]]:
    """Rule → `file::test` of every test whose name begins with it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, rules in _TEST.findall(path.read_text(encoding="utf-8")):
            for rule in filter(None, rules.split("_")):
                found[rule].append(f"{path.relative_to(ROOT).as_posix()}::{name}")
    return found


def _held(text: str) -> str:
    tests = tests_of_rules()

    def row(match: re.Match[str]) -> str:
        rule, guarantee = match.groups()
        cell = "<br>".join(f"`{test}`" for test in tests.get(rule, ())) or "none yet"
        return f"| {rule} | {guarantee} | {cell} |"

    return _RULE_ROW.sub(row, text)


def regenerated(document: str) -> str:
    """The document with its generated parts made anew. Raises ValueError where a marker is missing."""
    text = (ROOT / document).read_text(encoding="utf-8")
    if document == GUARANTEES:
        return _held(text)
    for name, make in PARTS[document].items():
        before, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}:end -->")
        if not (begin and end):
            raise ValueError(f"{document} lacks <!-- {name}:begin --> … <!-- {name}:end -->")
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


def main(arguments: Sequence[str]) -> int:
    """Rewrite what differs, or with `--check` name it; the exit code."""
    differing = [name for name in PARTS if regenerated(name) != (ROOT / name).read_text(encoding="utf-8")]
    for name in differing:
        if "--check" in arguments:
            print(f"{name} differs from the code: run `python docs/generate.py`")
        else:
            (ROOT / name).write_text(regenerated(name), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
