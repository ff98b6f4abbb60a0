"""Keeps base/prometheusrule.yaml what deploy/prometheus/rules.yml is: one truth for alerts, in a cluster and outside.

`python generate.py` writes it, `--check` only looks (exit code 1 if it differs).
"""

# ruff: noqa: INP001 - a script of its own, in no package

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package that only this file would need

_HERE = Path(__file__).resolve().parent
RULES = _HERE.parent / "prometheus" / "rules.yml"
MANIFEST = _HERE / "base" / "prometheusrule.yaml"
_HEAD = "# Made by deploy/kubernetes/generate.py from deploy/prometheus/rules.yml: change that one.\n"


def manifest() -> str:
    """The PrometheusRule as text."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    resource: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "threadline"},
        "spec": {"groups": groups},
    }
    return _HEAD + str(yaml.safe_dump(resource, sort_keys=False, width=120))


def main() -> int:
    """The exit code."""
    text = manifest()
    if "--check" in sys.argv[1:]:
        if MANIFEST.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{MANIFEST.name} differs from {RULES.name}: run `python deploy/kubernetes/generate.py`\n")
        return 1
    MANIFEST.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
